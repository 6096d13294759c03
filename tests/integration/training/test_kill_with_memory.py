"""A run that is killed and goes on from a copy in memory equals one that nothing disturbed, bit for bit."""

import shutil
import signal

import pytest

from tests.support.memory_copies import ALWAYS, NEEDS_SHM, SELDOM, memory_folder
from tests.support.training_runs import TINY_WITH_COPIES, result_of, train
from trainerd.checkpoint.memory_place import memory_place, newest_in_memory
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume

KILLED = -signal.SIGKILL

pytestmark = [pytest.mark.torch, NEEDS_SHM]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(run, script=TINY_WITH_COPIES, **SELDOM).code == 0
    return result_of(run)


@pytest.fixture
def base():
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def settings(base):
    return SELDOM | ALWAYS | {"TRAINERD_MEMORY_DIR": base}


DEATHS = {
    "with a copy in place": ["memory.kept=kill"],
    "with the fourth copy in place": ["memory.kept=kill@4"],
    "while a copy is written": ["checkpoint.data.written=kill@3"],
    "before a copy has its name": ["checkpoint.staged=kill@3"],
    "after a copy got its name": ["checkpoint.renamed=kill@3"],
    "while the copy before is removed": ["prune.renamed=kill@2"],
    "in a step": ["training.stepped=kill@17"],
    "in a batch": ["training.batch=kill@23"],
    "between epochs": ["training.epoch-ended=kill@2"],
    "in validation": ["training.evaluated=kill@4"],
    "once the copy is on disk": ["memory.kept=kill@3", "memory.returned=kill"],
    "while the copy is brought back": ["memory.kept=kill@3", "checkpoint.staged=kill"],
    "during the resume": ["memory.kept=kill@3", "training.restored=kill"],
    "again and again": ["memory.kept=kill@2"] * 4,
    "when complete": ["training.completed=kill"],
}


@pytest.mark.parametrize("deaths", DEATHS.values(), ids=DEATHS.keys())
def test_a_killed_run_equals_an_undisturbed_one(tmp_path, base, settings, undisturbed, deaths):
    run = tmp_path / "run"
    for failpoints in deaths:
        assert train(run, script=TINY_WITH_COPIES, failpoints=failpoints, **settings).code == KILLED
    ending = train(run, script=TINY_WITH_COPIES, **settings)
    assert ending.code == 0, ending.output
    assert result_of(run) == undisturbed
    assert list(base.glob("*/*")) == []  # a finished run leaves nothing in memory


def test_the_steps_since_the_copy_are_all_that_is_lost_and_the_record_names_the_source(tmp_path, settings):
    run = RunPaths(tmp_path / "run")
    assert (
        train(run.root, script=TINY_WITH_COPIES, failpoints="memory.kept=kill@4", **settings).code == KILLED
    )
    assert CheckpointStore.of_run(run).checkpoints() == ()
    step = newest_in_memory(run.checkpoints)
    done = read_history(run.metrics).rows[-1]["step"]
    assert step == done == 4  # no step is lost: each is as long as a copy
    # It is restored at once, and written to disk behind the first step.
    assert (
        train(run.root, script=TINY_WITH_COPIES, failpoints="training.stepped=kill", **settings).code
        == KILLED
    )
    record = read_resume(run.resume)
    assert (record.step, record.source, record.lost) == (step, "memory", 0)
    assert CheckpointStore.of_run(run).checkpoints() == ()
    ending = train(run.root, script=TINY_WITH_COPIES, failpoints="memory.kept=kill", **settings)
    assert f"step-{step:09d} was kept in memory, and is on disk now" in ending.output
    record = read_resume(run.resume)
    assert (record.step, record.source, record.lost) == (step, "memory", 1)
    newest = CheckpointStore.of_run(run).checkpoints()[-1]
    assert (newest.step, newest.manifest.reason) == (step, "memory")


def test_a_machine_that_dies_before_the_copy_is_on_disk_costs_steps_and_nothing_else(
    tmp_path, base, settings, undisturbed
):
    run = tmp_path / "run"
    for failpoints in ("memory.kept=kill@4", "checkpoint.staged=kill"):
        assert train(run, script=TINY_WITH_COPIES, failpoints=failpoints, **settings).code == KILLED
    assert newest_in_memory(RunPaths(run).checkpoints) == 4  # it stays until it is on disk
    shutil.rmtree(memory_place(RunPaths(run).checkpoints))
    assert train(run, script=TINY_WITH_COPIES, **settings).code == 0
    assert read_resume(RunPaths(run).resume).step == 0
    assert result_of(run) == undisturbed


def test_a_run_without_the_setting_has_nothing_in_memory(tmp_path, base):
    run = RunPaths(tmp_path / "run")
    environment = SELDOM | {"TRAINERD_MEMORY_DIR": base}
    assert (
        train(run.root, script=TINY_WITH_COPIES, failpoints="training.stepped=kill@9", **environment).code
        == KILLED
    )
    assert memory_place(run.checkpoints) is None
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_damaged_copy_is_not_used_and_the_disk_is(tmp_path, settings, undisturbed, harm):
    run = RunPaths(tmp_path / "run")
    assert (
        train(run.root, script=TINY_WITH_COPIES, failpoints="memory.kept=kill@4", **settings).code == KILLED
    )
    place = memory_place(run.checkpoints)
    for tensors in place.glob("step-*/rank-00000.safetensors"):
        data = bytearray(tensors.read_bytes())
        data[-5] ^= 1
        tensors.write_bytes(data if harm == "flipped" else data[:-1])
        if harm == "gone":
            tensors.unlink()
    ending = train(run.root, script=TINY_WITH_COPIES, **settings)
    assert ending.code == 0
    assert "a copy in memory is not used: step-" in ending.output
    assert read_resume(run.resume).step == 0
    assert result_of(run.root) == undisturbed
