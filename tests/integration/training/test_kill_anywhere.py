"""A run that is killed and run again equals one that nobody disturbed, bit for bit.

No supervisor here: the script alone, run until it has finished. The tiny job has augmentation that draws from
every generator, dropout, a short last batch, and validation; 3 epochs of 10 steps.
"""

import signal

import pytest

from tests.support.training_runs import HARD_LOOP, result_of, train
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths

EVERY = {"TRAINERD_CHECKPOINT_EVERY_STEPS": 4}
KILLED = -signal.SIGKILL

DEATHS = {
    "before the first batch": ["training.batch=kill"],
    "in the first step": ["training.stepped=kill"],
    "in the middle of an epoch": ["training.stepped=kill@6"],
    "in a batch, before its step": ["training.batch=kill@8"],
    "at the last step of an epoch": ["training.stepped=kill@10"],
    "between last batch and the end of validation": ["training.evaluated=kill@3"],
    "between validation and the checkpoint of the epoch": ["history.synced=kill@3"],
    "between epochs": ["training.epoch-ended=kill"],
    "in a later epoch": ["training.stepped=kill@17"],
    "after the last step of all": ["training.stepped=kill@30"],
    "when complete": ["training.completed=kill"],
    "during a save": ["checkpoint.data.written=kill@3"],
    "between a save and its rename": ["checkpoint.staged=kill@2"],
    "between the rename and what follows": ["checkpoint.renamed=kill@2"],
    "while pruning": ["prune.renamed=kill"],
    "during the resume": ["training.stepped=kill@6", "training.restored=kill"],
    "at the start": ["training.started=kill"],
    "twice within one epoch": ["training.stepped=kill@5", "training.stepped=kill@3"],
    "in every attempt": ["training.stepped=kill@6"] * 5,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(run, **EVERY).code == 0
    return result_of(run)


@pytest.mark.torch
@pytest.mark.parametrize("deaths", DEATHS.values(), ids=DEATHS.keys())
def test_a_killed_run_equals_an_undisturbed_one(tmp_path, undisturbed, deaths):
    for failpoints in deaths:
        assert train(tmp_path / "run", failpoints=failpoints, **EVERY).code == KILLED
    assert train(tmp_path / "run", **EVERY).code == 0
    assert result_of(tmp_path / "run") == undisturbed


DRAIN_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
DRAINS = {
    "in a step": "training.batch={}@6",
    "at the last batch of an epoch": "training.batch={}@10",
    "in validation": "training.evaluated={}@3",
    "between epochs": "training.epoch-ended={}",
    "during a save": "checkpoint.data.written={}@3",
    "before the first batch": "training.restored={}",
}


def drain_cases():
    """Each place with one signal and each signal at two places; all of both in CI."""
    for index, (name, place) in enumerate(DRAINS.items()):
        for signal_index, number in enumerate(DRAIN_SIGNALS):
            is_everyday = index % len(DRAIN_SIGNALS) == signal_index
            marks = () if is_everyday else pytest.mark.slow
            yield pytest.param(place, number, id=f"{name}-{number}", marks=marks)


@pytest.mark.torch
@pytest.mark.parametrize(("place", "number"), drain_cases())
def test_a_drained_run_equals_an_undisturbed_one(tmp_path, undisturbed, place, number):
    ending = train(tmp_path / "run", failpoints=place.format(number), **EVERY)
    assert ending.code == DRAINED, ending.output
    assert number in ending.output
    assert train(tmp_path / "run", **EVERY).code == 0
    assert result_of(tmp_path / "run") == undisturbed


@pytest.mark.torch
def test_a_drain_loses_no_step(tmp_path):
    assert train(tmp_path / "run", failpoints="training.batch=SIGTERM@7", **EVERY).code == DRAINED
    newest = CheckpointStore.of_run(RunPaths(tmp_path / "run")).checkpoints()[-1]
    assert (newest.step, newest.manifest.reason) == (7, "drain")
    assert train(tmp_path / "run", **EVERY).code == 0
    assert read_history(RunPaths(tmp_path / "run").metrics).superseded == ()


@pytest.mark.torch
def test_workers_change_nothing_and_may_change_between_attempts(tmp_path, undisturbed):
    assert (
        train(tmp_path / "run", "--workers", 2, failpoints="training.stepped=kill@6", **EVERY).code == KILLED
    )
    assert (
        train(tmp_path / "run", "--workers", 1, failpoints="training.batch=SIGTERM@9", **EVERY).code
        == DRAINED
    )
    assert train(tmp_path / "run", "--workers", 0, **EVERY).code == 0
    assert result_of(tmp_path / "run") == undisturbed


@pytest.mark.torch
def test_torchs_own_optimizer_and_a_plateau_scheduler_are_exact_too(tmp_path):
    arguments = ("--optimizer", "adamw")
    for name, deaths in {"a": [], "b": ["training.stepped=kill@13", "training.evaluated=SIGTERM"]}.items():
        for failpoints in deaths:
            assert train(tmp_path / name, *arguments, failpoints=failpoints, **EVERY).code in {
                KILLED,
                DRAINED,
            }
        assert train(tmp_path / name, *arguments, **EVERY).code == 0
    assert result_of(tmp_path / "b") == result_of(tmp_path / "a")


@pytest.mark.torch
def test_a_finished_run_goes_on_when_it_is_given_more_epochs(tmp_path, undisturbed):
    assert train(tmp_path / "run", "--epochs", 2, **EVERY).code == 0
    assert train(tmp_path / "run", "--epochs", 3, **EVERY).code == 0
    assert result_of(tmp_path / "run") == undisturbed


@pytest.mark.torch
def test_a_truncated_newest_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, undisturbed):
    run = tmp_path / "run"
    assert train(run, failpoints="training.batch=SIGTERM@9", **EVERY).code == DRAINED
    store = CheckpointStore.of_run(RunPaths(run))
    newest = store.checkpoints()[-1]
    tensors = newest.path / "rank-00000.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    assert train(run, **EVERY).code == 0
    assert result_of(run) == undisturbed
    (aside,) = store.quarantined()
    assert (aside.path.name, "bytes, not" in aside.reason) == (newest.name, True)


@pytest.mark.torch
def test_two_processes_on_one_run_are_refused_by_name(tmp_path):
    store = CheckpointStore.of_run(RunPaths(tmp_path / "run"))
    with store.lock():
        ending = train(tmp_path / "run", **EVERY)
    assert ending.code == 1
    assert "is being written by another process (pid" in ending.output


HARD_DEATHS = [
    "training.evaluated=SIGTERM@2",
    "training.evaluated=SIGTERM@7",
    "training.evaluated=kill@12",
    "training.batch=SIGTERM@3",
    "training.batch=SIGTERM@8",
    "training.batch=SIGTERM@14",
    "training.epoch-ended=SIGTERM",
]


@pytest.fixture(scope="module")
def hard_undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("hard") / "run"
    assert train(run, script=HARD_LOOP).code == 0
    return result_of(run)


@pytest.mark.torch
@pytest.mark.parametrize("death", HARD_DEATHS)
def test_code_around_the_loops_is_done_once(tmp_path, hard_undisturbed, death):
    """Two loops an epoch, a break, schedulers and counters before, between and after them, accumulation."""
    run = tmp_path / "run"
    for failpoints in (death, "training.evaluated=SIGTERM@2"):
        assert train(run, script=HARD_LOOP, failpoints=failpoints).code in {KILLED, DRAINED}
    assert train(run, script=HARD_LOOP).code == 0
    assert result_of(run) == hard_undisturbed
