"""A drain notes the contents of the next batch, and the resume compares them."""

import json
import multiprocessing
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.support.in_process import attempt
from tests.support.in_process_drain import drained_at
from trainerd.contract.resume_record import read_resume, summary
from trainerd.training.engine import witness
from trainerd.training.interruption import drain_flag

pytestmark = pytest.mark.torch


class Points(Dataset):
    """Samples that a test can change, and that can be slow or fail from one on."""

    def __init__(self):
        self.shift = 0.0
        self.slow_from = self.failing_from = 10**9

    def __len__(self):
        return 24

    def __getitem__(self, index):
        if index >= self.slow_from:
            time.sleep(60)
        if index >= self.failing_from:
            raise ValueError("no more cheese")
        return torch.rand(2) + index + self.shift


class Script:
    def __init__(self):
        self.data = Points()
        self.workers = 0
        self.seen = []

    def loader(self):
        return DataLoader(self.data, 4, num_workers=self.workers)

    def __call__(self, session, tick):
        model = nn.Linear(2, 1)
        session.track(model=model)
        loader = self.loader()
        for _ in session.epochs(2):
            for points in session.batches(loader):
                self.seen.append(points.sum().item())
                session.log(loss=model(points).sum())
                tick()


@pytest.fixture
def script():
    return Script()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("call", [1, 3, 8])
def test_a_drain_within_a_loop_is_compared_and_exact(run, script, tmp_path, workers, call):
    script.workers = workers
    drained_at(run.root, script, call)
    noted = json.loads(run.witness.read_bytes())
    assert (noted["checkpoint"], noted["epoch"], noted["batch"]) == (
        f"step-{call:09d}",
        (call - 1) // 6,
        (call - 1) % 6 + 1,
    )
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.verdict, found.is_witnessed, found.is_read_back) == ("exact", True, True)
    assert summary(found) == "exact: the restored state and the contents of the next batch are equal"
    other = Script()
    assert attempt(tmp_path / "undisturbed", other)
    assert script.seen == other.seen
    assert not multiprocessing.active_children()


def test_other_contents_of_the_next_batch_are_a_difference(run, script, capfd):
    drained_at(run.root, script, 3)
    script.data.shift = 1.0
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.verdict, found.is_witnessed) == ("different", False)
    assert found.first_difference.startswith("epoch 0, batch 3: the next batch has other contents")
    assert "dataset or sampler" in found.likely_cause
    assert "resume is not exact: epoch 0, batch 3" in capfd.readouterr().err


def test_an_iterable_that_goes_on_with_other_data_is_found_out(run, script):
    class Stream:
        calls = 0

        def __iter__(self):
            Stream.calls += 1  # something that decides what comes, and that is not restored
            return iter(torch.full((6, 2), float(Stream.calls)))

    script.loader = Stream
    drained_at(run.root, script, 3)
    with pytest.warns(UserWarning, match="thrown away"):
        assert attempt(run.root, script)
    assert read_resume(run.resume).verdict == "different"


def test_a_drain_at_the_end_of_an_epoch_has_no_witness_and_is_unchecked(run, script, capfd):
    drained_at(run.root, script, 6)
    assert not run.witness.exists()
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.verdict, found.is_witnessed) == ("unchecked", None)
    assert (
        "unchecked: no step is run again: it was saved without a digest of the next batch"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize(
    ("field", "value"), [("checkpoint", "step-000000009"), ("lineage", "0" * 32), ("batch", 4)]
)
def test_a_witness_of_another_checkpoint_is_not_compared(run, script, field, value):
    drained_at(run.root, script, 3)
    run.witness.write_text(json.dumps(json.loads(run.witness.read_bytes()) | {field: value}))
    script.data.shift = 1.0
    assert attempt(run.root, script)
    assert read_resume(run.resume).verdict == "unchecked"


@pytest.mark.parametrize("damage", ["", "{", "[" * 100_000, '{"format": "trainerd.witness/2"}'])
def test_a_damaged_witness_is_no_witness(run, script, damage):
    drained_at(run.root, script, 3)
    run.witness.write_text(damage)
    assert attempt(run.root, script)
    assert read_resume(run.resume).verdict == "unchecked"


def test_a_batch_that_takes_too_long_does_not_hold_up_the_drain(run, script, monkeypatch):
    left = []

    def timer(limit_s, leave):
        left.append((limit_s, leave))
        script.data.slow_from = script.data.failing_from = 0  # what the end of the process would do

        class Timer:
            daemon = False
            start = cancel = staticmethod(lambda: None)

        monkeypatch.setattr(time, "sleep", lambda _s: None)
        return Timer()

    monkeypatch.setattr(drain_flag.threading, "Timer", timer)
    drained_at(run.root, script, 3)
    assert [limit_s for limit_s, _ in left] == [witness.LIMIT_S]
    assert not run.witness.exists()


def test_a_batch_that_fails_gives_no_witness_and_ends_nothing(run, script):
    script.data.failing_from = 12
    drained_at(run.root, script, 3)
    assert not run.witness.exists()
    assert (run.checkpoints / "step-000000003").is_dir()


def test_a_batch_without_stable_contents_gives_no_witness(run):
    def script(session, tick):
        session.track(model=nn.Linear(2, 1))
        for _ in session.batches(DataLoader(Points(), 4, collate_fn=lambda _points: object())):
            tick()

    drained_at(run.root, script, 3)
    assert (run.checkpoints / "step-000000003").is_dir()
    assert not run.witness.exists()


def test_an_evaluation_before_the_loop_is_not_mistaken_for_the_next_batch(run, script):
    plain = script.loader

    def loop(session, tick):
        model = nn.Linear(2, 1)
        session.track(model=model)
        held_out = DataLoader(TensorDataset(torch.zeros(4, 2)), 4)
        loader = plain()
        for _ in session.epochs(2):
            for _ in session.batches(held_out, train=False):
                pass
            for points in session.batches(loader):
                session.log(loss=model(points).sum())
                tick()

    drained_at(run.root, loop, 3)
    assert attempt(run.root, loop)
    assert read_resume(run.resume).verdict == "exact"
