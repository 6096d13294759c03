"""Progress of a job is that of its run folder, unless a live attempt speaks."""

from __future__ import annotations

import json

import pytest

from tests.support.checkpoints import commit
from tests.support.supervisor_objects import STATE_SAMPLES, job
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.heartbeat import Heartbeat, Phase
from trainerd.contract.paths import RunPaths
from trainerd.supervisor.api.job_progress import job_progress
from trainerd.supervisor.api.saved_progress import NOTHING_SAVED, SavedProgress, loss_before, read_saved
from trainerd.supervisor.machine.states import Draining, Finished, Parked, Running, Starting, Stopped

DEAD = Heartbeat(Phase.DRAIN, 9, step=130, epoch=1, epochs=10, batch=30, batches=100, checkpoint_step=100)
LIVE = Heartbeat(
    Phase.STEP, 9, step=135, epoch=1, epochs=10, batch=35, batches=100, checkpoint_step=100, resumed_step=120
)
SAVED = SavedProgress("step-000000120", (1, 1), step=120, epoch=1, batch=20, loss=0.5)


@pytest.mark.parametrize("state", [Stopped, Parked, Finished])
def test_a_dead_attempt_does_not_speak_for_the_run(state):
    shown = job_progress(job(STATE_SAMPLES[state]), live=None, past=DEAD, saved=SAVED)
    assert (shown.step, shown.epoch, shown.batch, shown.checkpoint_step, shown.loss) == (120, 1, 20, 120, 0.5)
    assert (shown.epochs, shown.batches, shown.phase) == (10, 100, None)


@pytest.mark.parametrize("state", [Running, Draining])
def test_a_live_attempt_speaks_for_itself_but_for_the_checkpoint(state):
    shown = job_progress(job(STATE_SAMPLES[state]), live=LIVE, past=DEAD, saved=SAVED)
    assert (shown.phase, shown.step, shown.batch, shown.checkpoint_step) == ("step", 135, 35, 120)


@pytest.mark.parametrize("state", [Running, Finished])
def test_the_step_is_never_behind_the_newest_checkpoint(state):
    """The heartbeat was read before that checkpoint was made."""
    newer = SavedProgress("step-000000250", (1, 1), step=250, epoch=2, batch=50, loss=0.5)
    shown = job_progress(job(STATE_SAMPLES[state]), live=LIVE, past=DEAD, saved=newer)
    assert (shown.step, shown.epoch, shown.batch, shown.checkpoint_step) == (250, 2, 50, 250)
    last = job_progress(job(STATE_SAMPLES[state]), live=LIVE, past=DEAD, saved=SAVED)
    assert last.step >= last.checkpoint_step


@pytest.mark.parametrize("live", [None, Heartbeat(Phase.START, 1)])
def test_an_attempt_that_starts_is_where_its_checkpoint_is(live):
    shown = job_progress(job(Starting()), live=live, past=DEAD, saved=SAVED)
    assert (shown.phase, shown.step, shown.checkpoint_step) == ("start" if live else "importing", 120, 120)


def test_a_session_that_has_saved_nothing_begins_at_step_0_and_a_plain_command_says_nothing():
    shown = job_progress(job(Parked()), live=None, past=DEAD, saved=NOTHING_SAVED)
    assert (shown.step, shown.epoch, shown.checkpoint_step) == (0, 0, None)
    plain = job_progress(job(Running()), live=None, past=None, saved=NOTHING_SAVED)
    assert (plain.phase, plain.step, plain.checkpoint_step) == ("no-session", None, None)


def test_without_a_look_at_the_folder_the_last_word_is_all_there_is():
    assert job_progress(job(Stopped()), live=None, past=DEAD, saved=None).step == 130
    assert job_progress(job(Stopped()), live=None, past=None, saved=None).step is None


def test_the_newest_checkpoint_is_read_once(tmp_path):
    run = RunPaths(tmp_path)
    assert read_saved(run) == NOTHING_SAVED
    store = CheckpointStore.of_run(run)
    with store.lock():
        commit(store, 20)
    first = read_saved(run)
    assert first is not None
    assert (first.step, first.checkpoint) == (20, "step-000000020")
    assert read_saved(run, first) is first
    (run.checkpoints / "step-000000030").mkdir()  # no manifest: not whole
    assert read_saved(run, first) is first


def test_the_loss_is_the_last_one_up_to_the_checkpoint(tmp_path):
    rows = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": "nan"},
        {"step": 3, "loss": 1.0},
        {"step": 3, "loss": 10**400},
        {"step": True, "loss": []},
        {"report": True, "step": 2, "loss": 9.0},
    ]
    history = tmp_path / "metrics.jsonl"
    history.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 2, "lo')
    assert loss_before(history, 3) == 1.0
    assert str(loss_before(history, 2)) == "nan"
    assert loss_before(history, 0) is None
    assert loss_before(tmp_path / "missing", 3) is None
