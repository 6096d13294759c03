"""Numbers on a device are logged without a wait, reach the history in order, and before what is committed."""

import errno
import json
import math
import threading
from unittest import mock

import pytest
import torch

import trainerd
from tests.support.fake_values import FakeValues
from tests.support.in_process import attempt
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.metric_history import read_history
from trainerd.contract.resume_record import read_resume
from trainerd.errors import NonFiniteLossError, UserError
from trainerd.training.engine import run_parts
from trainerd.training.engine.arriving_rows import ArrivingRows, LateRow

pytestmark = pytest.mark.torch


@pytest.fixture
def device():
    fake = FakeValues()
    with mock.patch.object(run_parts, "CUDA_VALUES", fake):
        yield fake


class Lines:
    """A history in memory, of one byte a line."""

    def __init__(self):
        self.lines = []

    @property
    def position_bytes(self):
        return len(self.lines)


def row(lines, name, batch=None):
    return LateRow({"name": name}, lambda values: lines.lines.append(values["name"]), batch)


# --------------------------------------------------------------------- the queue


def test_rows_are_written_in_order_whatever_has_arrived():
    device, lines = FakeValues(), Lines()
    rows = ArrivingRows(lines)
    late = device.batch()
    late.add(device.tensor(1.0))
    rows.add(row(lines, "first", late))
    rows.add(row(lines, "second"))
    rows.advance()
    assert lines.lines == []
    device.run()
    rows.advance()
    assert lines.lines == ["first", "second"]
    assert not rows.waiting
    assert device.waits == []


def test_a_mark_is_reached_when_all_rows_before_it_are_written_and_none_after():
    device, lines = FakeValues(), Lines()
    rows = ArrivingRows(lines)
    batches = [device.batch() for _ in range(3)]
    marks = []
    for number, batch in enumerate(batches):
        batch.add(device.tensor(1.0))
        rows.add(row(lines, number, batch))
        marks.append(rows.mark())
    assert rows.reach(marks[1]) == 2
    assert lines.lines == [0, 1]
    assert rows.reach(marks[1]) == 2  # a save that is made again
    device.run()
    rows.advance()
    assert rows.reach(marks[0]) == 1
    assert rows.mark() == 3


def test_a_mark_is_reached_however_many_came_after_it():
    device, lines = FakeValues(), Lines()
    rows, marks = ArrivingRows(lines), []
    for _ in range(2000):
        batch = device.batch()
        batch.add(device.tensor(1.0))
        rows.add(row(lines, 0, batch))
        marks.append(rows.mark())
    rows.settle()
    assert [rows.reach(mark) for mark in marks] == list(range(1, 2001))


def test_a_thread_that_commits_waits_while_the_loop_goes_on():
    device, lines = FakeValues(), Lines()
    rows = ArrivingRows(lines)
    is_waiting, may_arrive = threading.Event(), threading.Event()

    def on_wait():
        is_waiting.set()
        assert may_arrive.wait(10)

    device.on_wait = on_wait
    batch = device.batch()
    batch.add(device.tensor(1.0))
    rows.add(row(lines, "first", batch))
    mark, places = rows.mark(), []
    thread = threading.Thread(target=lambda: places.append(rows.reach(mark)))
    thread.start()
    assert is_waiting.wait(10)
    rows.add(row(lines, "second"))
    rows.advance()  # returns at once
    assert lines.lines == []
    may_arrive.set()
    thread.join(10)
    rows.advance()
    assert (places, lines.lines) == ([1], ["first", "second"])


# --------------------------------------------------------------------- a run


def loop_of(device, *, losses=(8, 7, 6, 5, 4, 3), scores=False, on_step=lambda step: None):
    def loop(session, tick):
        model = torch.nn.Linear(2, 1)
        session.track(model=model)
        for _ in session.epochs(1):
            for step in session.batches(range(len(losses))):
                loss = device.tensor(float(losses[step]))
                session.log(loss=loss, plain=step)
                loss.fill_(99.0)  # the value is that of the call
                tick()
                on_step(step)
            if scores:
                session.report(accuracy=device.tensor(0.5), plain=1)

    return loop


def test_no_step_waits_and_the_rows_are_those_of_the_calls(tmp_path, device):
    waits_at_steps = []

    def on_step(step):
        waits_at_steps.append(list(device.waits))
        if step == 3:
            device.run(2)

    run = tmp_path / "run"
    assert attempt(run, loop_of(device, on_step=on_step), steps=100)
    assert waits_at_steps == [[]] * 6
    rows = read_history(run / "metrics.jsonl").rows
    assert [(each["step"], each["loss"], each["plain"]) for each in rows] == [
        (step + 1, 8.0 - step, step) for step in range(6)
    ]


def test_a_commit_waits_for_the_rows_that_belong_to_it_in_the_thread_that_writes(tmp_path, device):
    run, seen = tmp_path / "run", {}

    def loop(session, tick):
        session.track(model=torch.nn.Linear(2, 1))
        for _ in session.epochs(1):
            for step in session.batches(range(6)):
                session.log(loss=device.tensor(float(step)))
                if step == 4:
                    newest = session._run.saves.wait()
                    seen["waits"] = list(device.waits)
                    seen["step"] = newest.step
                    kept = (run / "metrics.jsonl").read_bytes()[: newest.manifest.history_bytes]
                    seen["rows"] = [line for line in kept.splitlines() if b"loss" in line]
                    seen["ends"] = kept[-1:]

    assert attempt(run, loop, steps=3)
    assert seen["step"] == 3
    assert set(seen["waits"]) == {"trainerd-write"}
    assert (len(seen["rows"]), seen["ends"]) == (3, b"\n")


def test_steps_that_are_run_again_are_compared_when_their_numbers_arrive(tmp_path, device):
    run = tmp_path / "run"
    assert not attempt(run, loop_of(device), crash_at=6, steps=3)
    assert attempt(run, loop_of(device), steps=3)
    record = read_resume(run / "resume.json")
    assert (record.run_again, record.differing) == (record.lost, 0)
    assert record.lost > 0


@pytest.mark.parametrize("lag", [1, None], ids=str)
def test_rows_are_neither_lost_nor_doubled_wherever_a_run_is_struck(tmp_path, device, lag):
    """The last `lag` numbers are on their way still; None: none arrives unless something waits for it."""
    losses = tuple(range(9, 0, -1))

    def on_step(step):
        if lag is not None:
            device.run(max(device.started - lag - device.done, 0))

    def loop():
        device.started = device.done = 0  # a new process
        return loop_of(device, losses=losses, scores=True, on_step=on_step)

    assert attempt(tmp_path / "undisturbed", loop(), steps=2)
    expected = read_history(tmp_path / "undisturbed" / "metrics.jsonl")
    assert [each["step"] for each in expected.rows] == list(range(1, len(losses) + 1))
    for at in (2, 5, 9):
        run = tmp_path / f"at-{at}"
        assert not attempt(run, loop(), steps=2, crash_at=at)
        assert attempt(run, loop(), steps=2)
        found = read_history(run / "metrics.jsonl")
        assert (found.rows, found.reports) == (expected.rows, expected.reports), at


def test_rows_are_neither_lost_nor_doubled_if_the_run_ends_between_their_arrival_and_the_commit(
    tmp_path, device
):
    run, commits = tmp_path / "run", []
    commit = CheckpointStore.commit

    def ending(store, staging, manifest, *arguments, **options):
        commits.append(manifest.history_bytes)
        if len(commits) == 2:
            rows = (run / "metrics.jsonl").read_bytes()[: manifest.history_bytes].splitlines()
            assert json.loads(rows[-1])["step"] == manifest.step  # they have arrived
            raise OSError(errno.EIO, "the end of the process, here")
        return commit(store, staging, manifest, *arguments, **options)

    with mock.patch.object(CheckpointStore, "commit", ending), pytest.raises(OSError, match="the end of"):
        attempt(run, loop_of(device), steps=2)
    assert attempt(run, loop_of(device), steps=2)
    assert min(commits) > 0
    rows = read_history(run / "metrics.jsonl").rows
    assert [(each["step"], each["loss"]) for each in rows] == [(step, 9.0 - step) for step in range(1, 7)]


def test_a_value_that_differs_is_found_though_it_arrives_later(tmp_path, device):
    run = tmp_path / "run"
    assert not attempt(run, loop_of(device), crash_at=6, steps=3)
    assert attempt(run, loop_of(device, losses=(8, 7, 6, 5, 1, 3)), steps=3)
    record = read_resume(run / "resume.json")
    assert record.verdict == "different"
    assert record.first_difference.startswith("step 5: loss 4.0 became 1.0")


def test_scores_on_the_device_reach_the_history_and_the_checkpoint(tmp_path, device):
    run, scores = tmp_path / "run", {}

    def loop(session, tick):
        session.track(model=torch.nn.Linear(2, 1))
        for epoch in session.epochs(2):
            for step in session.batches(range(3)):
                session.log(loss=device.tensor(float(step)))
            session.report(accuracy=device.tensor(0.5 + epoch), plain=1)
            assert set(device.waits) <= {"trainerd-write"} or epoch
        store = session._run.checkpoints.store
        session._run.saves.wait()
        scores.update({each.step: each.manifest.scores for each in store.checkpoints()})

    assert attempt(run, loop, steps=100)
    reports = read_history(run / "metrics.jsonl").reports
    assert [(each["step"], each["accuracy"], each["plain"]) for each in reports] == [(3, 0.5, 1), (6, 1.5, 1)]
    assert scores[3] == {"accuracy": 0.5, "plain": 1.0}
    assert scores[6] == {"accuracy": 1.5, "plain": 1.0}


# --------------------------------------------------------------------- a loss that is not finite


@pytest.fixture
def stops(monkeypatch):
    monkeypatch.setenv("TRAINERD_ON_NONFINITE_LOSS", "stop")


def test_a_nan_that_arrives_later_ends_the_run_and_nothing_after_it_is_committed(tmp_path, device, stops):
    run = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match="the loss after step 4 is nan"):
        attempt(run, loop_of(device, losses=(8, 7, 6, 5, math.nan, 3)), steps=3)
    with trainerd.session(run) as session:
        session.track(model=torch.nn.Linear(2, 1))
        assert session.resume().step == 3


def test_a_nan_that_arrives_in_time_ends_the_run_at_the_next_step(tmp_path, device, stops):
    seen = []

    def on_step(step):
        seen.append(step)
        device.run()

    with pytest.raises(NonFiniteLossError):
        attempt(tmp_path / "run", loop_of(device, losses=(1, math.nan, 1, 1, 1), on_step=on_step), steps=100)
    assert seen == [0, 1]


# --------------------------------------------------------------------- what is no number


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2), torch.zeros(0), torch.tensor(True), torch.tensor(1j)],
    ids=["several", "none", "bool", "complex"],
)
def test_what_is_no_number_is_refused_without_asking_for_its_value(tmp_path, device, value):
    def loop(session, tick):
        session.track(model=torch.nn.Linear(2, 1))
        for _ in session.epochs(1):
            for _ in session.batches(range(2)):
                session.log(loss=device.tensor(value.tolist(), value.dtype))

    with pytest.raises(UserError, match="log and report take numbers: loss is a tensor"):
        attempt(tmp_path / "run", loop)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.uint8])
def test_numbers_of_every_kind_are_those_that_item_returns(tmp_path, device, dtype):
    def loop(session, tick):
        session.track(model=torch.nn.Linear(2, 1))
        for _ in session.epochs(1):
            for _ in session.batches(range(2)):
                session.log(x=device.tensor([[3.3]], dtype))

    run = tmp_path / "run"
    assert attempt(run, loop)
    assert {each["x"] for each in read_history(run / "metrics.jsonl").rows} == {
        torch.tensor(3.3, dtype=dtype).item()
    }
