"""The session's part in a drill, within this process."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import trainerd
from tests.support.struck import Killed, Left
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import rehearsal
from trainerd.contract.paths import RunPaths
from trainerd.contract.rehearsal import Rehearsal, Strike
from trainerd.errors import UserError
from trainerd.training import loop_wrappers
from trainerd.training.data.worker_count import another_number, rehearsed_workers
from trainerd.training.interruption import leaving
from trainerd.training.state import program_fingerprint


def shape(session, *, epochs=3, validates=True):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session.track(model=model, optimizer=optimizer)
    loader = DataLoader(TensorDataset(torch.randn(8, 2)), 2)
    for _ in session.epochs(epochs):
        for (x,) in session.batches(loader):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
        for (x,) in session.batches(loader, train=False) if validates else ():
            model(x)


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Run an attempt with strikes; return how it ended, and the boundary of its newest checkpoint."""

    def leave(code):
        raise Left(code)

    def kill(pid, number):
        if number == signal.SIGKILL:
            # What a killed process leaves. This one lives, and would complete the save in flight.
            left.append(newest())
            raise Killed
        real_kill(pid, number)

    def newest():
        manifest = CheckpointStore.of_run(RunPaths(tmp_path / "run")).checkpoints()[-1].manifest
        return manifest.step, manifest.epoch, manifest.batch

    left = []
    real_kill = os.kill
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: time.sleep(0.02)
    )  # so that a save is in flight for a time
    monkeypatch.setattr(program_fingerprint, "_code", dict)
    monkeypatch.setattr(loop_wrappers, "check_wrapper", lambda batches, suspect: None)
    monkeypatch.setattr(leaving, "exit_process", leave)
    monkeypatch.setattr(leaving, "end_process", leave)
    monkeypatch.setattr(leaving, "end_workers", lambda: None)
    monkeypatch.setattr(os, "kill", kill)

    def run(*strikes, traced_step=None, **options):
        asked = Rehearsal(str(tmp_path), strikes, traced_step=traced_step)
        monkeypatch.setenv(rehearsal.VARIABLE, rehearsal.to_variable(asked))
        settings = {"steps": 2, "seconds": None, "epochs": None}
        ended = "finished"
        try:
            with trainerd.session(
                tmp_path / "run", every=settings, keep_last=None, uncompared=("speed",)
            ) as session:
                shape(session, **options)
        except Left:
            ended = "drained"
        except Killed:
            ended = "killed"
        return ended, left[-1] if ended == "killed" else newest()

    return run


def test_a_drain_at_a_step_leaves_that_step(attempt):
    assert attempt(Strike("drain", "step", 3)) == ("drained", (3, 0, 3))


def test_a_kill_is_noted_with_the_number_of_the_attempt(attempt, tmp_path):
    assert not rehearsal.was_killed(tmp_path, 1)
    attempt(Strike("drain", "step", 1))
    assert not rehearsal.was_killed(tmp_path, 1)
    attempt(Strike("kill", "step", 3))
    assert [rehearsal.was_killed(tmp_path, number) for number in (1, 2)] == [False, True]


def test_a_kill_comes_after_the_save_in_flight(attempt):
    assert attempt(Strike("kill", "step", 3)) == ("killed", (2, 0, 2))


def test_a_drain_in_an_evaluation_goes_back_to_the_end_of_the_loop(attempt):
    assert attempt(Strike("drain", "evaluation", 1)) == ("drained", (4, 0, 0))


def test_the_end_of_the_grace_period_after_a_loop_saves_the_end_of_the_loop(attempt):
    assert attempt(Strike("flush", "after-loop", 1)) == ("drained", (4, 0, 0))


def test_a_drain_at_the_end_of_an_epoch_leaves_the_epoch_behind(attempt):
    assert attempt(Strike("drain", "epoch", 1), validates=False) == ("drained", (4, 1, 0))


def test_a_strike_beyond_the_end_never_comes(attempt):
    assert attempt(Strike("drain", "step", 100))[0] == "finished"


def test_an_attempt_stops_at_the_step_of_the_drill_wherever_it_began(attempt):
    stop = Strike("drain", "step", 7)
    assert attempt(Strike("kill", "step", 3), stop)[0] == "killed"
    assert attempt(stop) == ("drained", (7, 1, 3))


def test_the_notes_say_what_the_script_does_not_compare(attempt, tmp_path):
    attempt(Strike("drain", "step", 1))
    assert rehearsal.read_notes(tmp_path).uncompared == ("speed",)


def test_the_outputs_of_the_traced_step_are_noted_in_order(attempt, tmp_path):
    attempt(Strike("drain", "step", 3), traced_step=2)
    outputs = rehearsal.read_notes(tmp_path).outputs
    assert [name for name, _ in outputs] == [
        "model before the step",
        "model.0",
        "model.1",
        "model.2",
        "model",
    ]
    assert len({digest for _, digest in outputs[1:4]}) == 3
    assert not torch.are_deterministic_algorithms_enabled()


def test_outside_of_a_drill_nothing_is_rehearsed(tmp_path):
    with trainerd.session(tmp_path / "run") as session:
        assert session._engine._rehearsed is None


def test_a_loader_gets_another_number_of_workers_only_in_a_drill_that_asks_for_it(tmp_path):
    asked = {rehearsal.VARIABLE: rehearsal.to_variable(Rehearsal(str(tmp_path), changes_workers=True))}
    assert rehearsed_workers(3, {}) == 3
    assert rehearsed_workers(3, {rehearsal.VARIABLE: rehearsal.to_variable(Rehearsal(str(tmp_path)))}) == 3
    assert not (tmp_path / rehearsal.WORKERS_NAME).exists()
    assert rehearsed_workers(3, asked) == 1
    assert (tmp_path / rehearsal.WORKERS_NAME).read_text() == "3 became 1\n"


@pytest.mark.parametrize("own", [0, 1, 2, 8])
def test_another_number_of_workers_is_another_one(own):
    assert another_number(own) != own


def test_a_variable_that_cannot_be_read_is_refused():
    with pytest.raises(UserError, match=r"only `trainerd drill` sets it"):
        rehearsal.from_environ({rehearsal.VARIABLE: "{"})


def test_the_steps_of_the_first_epoch_are_noted_once_it_is_over(attempt, tmp_path):
    attempt(Strike("drain", "step", 3))
    assert rehearsal.read_notes(tmp_path).epoch_steps is None
    attempt(Strike("drain", "step", 9))
    assert rehearsal.read_notes(tmp_path).epoch_steps == 4


def test_what_a_tracked_object_calls_a_measurement_is_not_compared(tmp_path, monkeypatch):
    class Timed:
        trainerd_measured = ("seconds",)

        def state_dict(self):
            return {"seconds": time.monotonic()}

        def load_state_dict(self, state):
            pass

    monkeypatch.setenv(rehearsal.VARIABLE, rehearsal.to_variable(Rehearsal(str(tmp_path))))
    with trainerd.session(tmp_path / "run", uncompared=("speed",)) as session:
        session.track(timer=Timed(), model=torch.nn.Linear(1, 1))
        for _ in session.epochs(1):
            pass
    assert rehearsal.read_notes(tmp_path).uncompared == ("speed", "timer.seconds")
