"""A run that is driven: a crash or a drain leads to the weights and the history of an undisturbed run."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import trainerd
from tests.support.in_process import attempt, disturbed, undisturbed
from tests.support.in_process_drain import drained_at
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume
from trainerd.errors import UserError

pytestmark = pytest.mark.torch


class Noisy(Dataset[Any]):
    def __init__(self, length: int = 10) -> None:
        self.x = torch.arange(float(length)).unsqueeze(1) / length

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index] + torch.rand(1) * 0.1 + random.random() * 0.01


def train(session: trainerd.Session, tick: Any, *, epochs: int = 3, log: list[float] | None = None) -> None:
    """Train as a framework does: with a loop, counters and a metric of its own."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.4), torch.nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    loader = trainerd.exact(DataLoader(Noisy(), batch_size=3, shuffle=True), seed=5)
    session.track(model=model, optimizer=optimizer, scheduler=scheduler)
    total = session.value("total", 0.0)
    drive = session.drive()
    place = drive.begin(epochs=epochs)
    step = place.step
    torch.rand(7)  # what a framework draws before its loop
    drive.put_back()
    for epoch in range(place.epoch, epochs):
        is_first = epoch == place.epoch
        if not (is_first and place.is_epoch_trained):
            start = place.batch if is_first else 0
            loader.begin_at(epoch, start)
            for batch, x in enumerate(loader, start):
                tick()
                loss = (model(x) - 1).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                session.log(loss=loss)
                total.value += loss.item()
                drive.step_done(step, epoch, batch + 1, batch + 1 == len(loader))
        tick()
        scheduler.step()
        torch.rand(1)
        session.report(score=total.value)
        tick()
        drive.epoch_done(epoch)
    if log is not None:
        log.extend([*model.state_dict()[next(iter(model.state_dict()))].flatten().tolist(), total.value])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), train, steps=2)


# Of the six calls of an epoch, four are steps, the fifth comes before its end, the sixth within it.
@pytest.mark.parametrize("crash_at", [1, 4, 5, 6, 7, 18])
def test_a_crash_anywhere_changes_nothing(crash_at: int, tmp_path: Path, expected: Any) -> None:
    assert disturbed(tmp_path, train, (crash_at,), steps=2) == expected


@pytest.mark.parametrize("call", [1, 4, 5, 6, 9, 16])
def test_a_drain_anywhere_changes_nothing(call: int, tmp_path: Path, expected: Any) -> None:
    drained_at(tmp_path, train, call)
    assert disturbed(tmp_path, train, (), steps=2) == expected


def test_a_checkpoint_within_an_epoch_that_was_resumed_equals_one_that_was_not(
    tmp_path: Path, saved_each_time: None
) -> None:
    for run, crashes in (("alone", (4,)), ("resumed", (3, 2))):
        for crash_at in crashes:
            assert not attempt(tmp_path / run, train, crash_at=crash_at, steps=1)
    alone, resumed = [newest_of(tmp_path / run) for run in ("alone", "resumed")]
    assert (alone.name, alone.manifest.batch) == (resumed.name, 3)
    assert {each.name: each.digest for each in alone.manifest.files} == {
        each.name: each.digest for each in resumed.manifest.files
    }


def newest_of(run_dir: Path) -> Any:
    return CheckpointStore.of_run(RunPaths(run_dir)).checkpoints()[-1]


def test_the_generator_of_an_exact_loader_decides_nothing_and_is_not_named(tmp_path: Path) -> None:
    disturbed(tmp_path, train, (4,), steps=2)
    found = read_resume(RunPaths(tmp_path).resume)
    assert found is not None
    assert {reason.kind for reason in found.reasons} == {"no-samples"}  # of batches that a framework asks for


def test_a_resume_of_a_resume_changes_nothing(tmp_path: Path, expected: Any) -> None:
    assert disturbed(tmp_path, train, (3, 2, 5, 4), steps=1) == expected


def test_more_epochs_continue_and_a_finished_run_trains_nothing(tmp_path: Path) -> None:
    ticks: list[int] = []
    log: list[float] = []

    def counted(session: trainerd.Session, tick: Any, epochs: int) -> None:
        ticks.append(0)

        def count() -> None:
            ticks[-1] += 1

        train(session, count, epochs=epochs, log=log)

    for epochs in (2, 2, 3):
        assert attempt(tmp_path / "b", lambda session, tick, n=epochs: counted(session, tick, n))
    assert ticks == [12, 0, 6]
    final = log[-len(log) // 3 :]
    once: list[float] = []
    assert attempt(tmp_path / "a", lambda session, tick: train(session, tick, log=once))
    assert final == once


def test_numbers_that_do_not_follow_are_an_error(tmp_path: Path) -> None:
    wrong = itertools.chain([(2, 1, 1), (1, 0, 1), (1, 0, 2), (2, 0, 1), (2, 1, 2)])
    with trainerd.session(tmp_path, strict=False) as session:
        drive = session.drive()
        drive.begin()
        with pytest.raises(UserError, match="does not follow step 0, epoch 0, batch 0"):
            drive.step_done(*next(wrong))
        drive.step_done(*next(wrong))
        for numbers in wrong:
            with pytest.raises(UserError, match="does not follow step 1, epoch 0, batch 1"):
                drive.step_done(*numbers)
        with pytest.raises(UserError, match=r"epoch_done\(1\): epoch 0 is in progress"):
            drive.epoch_done(1)


def test_the_session_has_no_loop_beside_the_drive(tmp_path: Path) -> None:
    with trainerd.session(tmp_path) as session:
        session.drive().begin()
        with pytest.raises(UserError, match="driven by a framework"):
            session.batches([1, 2])


def test_the_state_of_one_object_is_known_before_the_others_exist(tmp_path: Path) -> None:
    def first(session: trainerd.Session) -> Any:
        drive = session.drive()
        saved = drive.saved_state("counter")
        counter = Counter()
        model = torch.nn.Linear(1, 1 + (saved or {"count": 0})["count"])
        session.track(counter=counter)
        session.track(model=model)
        drive.begin()
        return saved, counter

    with trainerd.session(tmp_path) as session:
        saved, counter = first(session)
        assert saved is None
        with pytest.raises(UserError, match="before the run has begun"):
            session.drive().saved_state("counter")
        session.drive().step_done(1, 0, 1, True)
        session.drive().epoch_done(0)
    with trainerd.session(tmp_path) as session:
        saved, counter = first(session)
        assert saved == {"count": 0}
        assert counter.count == 0


class Counter:
    count = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_objects_and_generators_are_put_back_apart_and_on_request(tmp_path: Path) -> None:
    def begun() -> tuple[trainerd.Drive, Counter]:
        drive = trainerd.driven(tmp_path)
        counter = Counter()
        drive.session.track(counter=counter)
        drive.begin()
        return drive, counter

    drive, counter = begun()
    counter.count = 3
    drive.step_done(1, 0, 1, True)
    drive.epoch_done(0)
    state = torch.get_rng_state()
    drive.finish()
    drive, counter = begun()
    assert torch.equal(torch.get_rng_state(), state)
    counter.count = 9
    torch.rand(1)
    drive.put_back()
    assert (counter.count, torch.equal(torch.get_rng_state(), state)) == (9, True)
    torch.rand(1)
    drive.put_back("counter", generators=False)
    assert (counter.count, torch.equal(torch.get_rng_state(), state)) == (3, False)
    drive.step_done(2, 1, 1)
    counter.count = 9
    drive.put_back("counter")  # something was trained since
    assert counter.count == 9
    drive.finish()


def test_a_drive_without_a_block_finishes_and_frees_the_run(tmp_path: Path) -> None:
    drive = trainerd.driven(tmp_path)
    drive.begin()
    drive.finish()
    assert json.loads((tmp_path / "finished.json").read_text())["step"] == 0
    with pytest.raises(UserError, match="is over"):
        drive.session.log(loss=1.0)


def test_a_failed_drive_is_not_finished(tmp_path: Path) -> None:
    drive = trainerd.driven(tmp_path)
    drive.begin()
    drive.step_done(1, 0, 1)
    drive.fail(RuntimeError("broken"))
    assert not (tmp_path / "finished.json").exists()
    again = trainerd.driven(tmp_path)  # the lock is free
    again.begin()
    again.finish()


def test_length_is_the_number_of_batches_of_an_epoch(tmp_path: Path) -> None:
    with trainerd.session(tmp_path) as session:
        assert session.length(DataLoader(Noisy(), batch_size=4)) == 3
        assert session.length(DataLoader(Noisy(), batch_size=4, drop_last=True)) == 2
        assert session.length(trainerd.exact(DataLoader(Noisy(), batch_size=4))) == 3
        assert session.length([1, 2, 3, 4]) == 4
        assert session.length(each for each in "ab") is None


def test_signals_are_handed_over_and_taken_back(tmp_path: Path) -> None:
    heard: list[int] = []

    def of_framework(number: int, _frame: Any) -> None:
        heard.append(number)

    former = signal.signal(signal.SIGTERM, of_framework)
    try:
        with trainerd.session(tmp_path, signals=False) as session:
            flag = session._run.flag
            os.kill(os.getpid(), signal.SIGTERM)
            assert (heard, flag.is_set) == ([signal.SIGTERM], False)
            assert not session.hand_over_signals()
            session.take_signals()
            signal.signal(signal.SIGTERM, of_framework)
            session.take_signals()
            assert session.hand_over_signals()
            os.kill(os.getpid(), signal.SIGTERM)
            assert (heard, flag.is_set) == ([signal.SIGTERM] * 2, False)
            session.take_signals()
            os.kill(os.getpid(), signal.SIGTERM)
            assert (heard, flag.is_set) == ([signal.SIGTERM] * 2, True)
            flag.is_set = False
        assert signal.getsignal(signal.SIGTERM) is of_framework
    finally:
        signal.signal(signal.SIGTERM, former)


def test_what_was_asked_for_drains_at_the_next_boundary(tmp_path: Path) -> None:
    reached: list[str] = []

    def loop(session: trainerd.Session, tick: Any) -> None:
        drive = session.drive()
        drive.begin()
        drive.step_done(1, 0, 1)
        tick()
        drive.evaluation_batch_done()  # within a step
        reached.append("evaluated")
        drive.step_done(2, 0, 2)
        reached.append("went on")

    drained_at(tmp_path, loop, 1, strict=False, signals=False)
    assert reached == ["evaluated"]
    with trainerd.session(tmp_path, strict=False) as session:
        assert session.drive().begin().step == 2
