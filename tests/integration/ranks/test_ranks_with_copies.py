"""Ranks that are killed go on from the newest boundary that all of them hold in memory, bit for bit."""

from __future__ import annotations

import random
import shutil
import signal

import pytest

from tests.support.checkpoints import flip_bit
from tests.support.memory_copies import ALWAYS, NEEDS_SHM, SELDOM, memory_folder
from tests.support.rank_runs import SHARDED_LOOP, Attempt, run_ranks
from tests.support.training_runs import result_of
from trainerd.checkpoint.memory_place import memory_place, newest_in_memory
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(240),
    NEEDS_SHM,
]

BOTH = (0, 1)
ENDED_BY = {"kill": -signal.SIGKILL, "exit": 70}
PACE = ("--step-ms", 80)
"""Long beside the 20 ms in which a rank hears that a copy is wanted: so the next step is copied."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    run_ranks(run, **SELDOM)
    return result_of(run)


@pytest.fixture
def base():
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def settings(base):
    return SELDOM | ALWAYS | {"TRAINERD_MEMORY_DIR": base}


def killed(run, *arguments, failpoints, fails_on, by="kill", **settings):
    """Run an attempt that a failpoint ends; return its output."""
    points = failpoints.replace("=kill", f"={by}")
    with Attempt(run, *(arguments or PACE), failpoints=points, fails_on=fails_on, **settings) as attempt:
        codes = attempt.wait()
    struck = [codes[rank] for rank in BOTH if fails_on in {None, rank}]
    assert ENDED_BY[by] in struck, (codes, attempt.output)
    assert 0 not in codes, attempt.output
    return attempt.output


def in_memory(run):
    return newest_in_memory(RunPaths(run).checkpoints)


def check_goes_on_from_memory(run, settings, undisturbed, *arguments, **more):
    """Let the run finish, from the copy, and compare it with one that nothing disturbed."""
    step = in_memory(run)
    assert step is not None
    assert CheckpointStore.of_run(RunPaths(run)).checkpoints() == ()
    done = read_history(RunPaths(run).metrics).rows[-1]["step"]
    output = run_ranks(run, *arguments, **settings, **more).output
    record = read_resume(RunPaths(run).resume)
    assert (record.step, record.source, record.lost) == (step, "memory", done - step), output
    assert record.verdict == "exact" or record.lost == 0, output
    assert result_of(run) == undisturbed


DEATHS = {
    "when a copy is agreed upon": ("memory.agreed=kill@3", BOTH),
    "when all ranks are ready": ("memory.ready=kill@3", BOTH),
    "while a part is written": ("checkpoint.data.written=kill@5", BOTH),
    "when a part is written": ("checkpoint.data.synced=kill@6", BOTH),
    "when the part is announced": ("ranks.announced=kill@3", (1,)),
    "before the copy has its name": ("checkpoint.staged=kill@3", (0,)),
    "after the copy got its name": ("checkpoint.renamed=kill@3", (0,)),
    "with the copy in place": ("memory.kept=kill@3", (0,)),
    "while the copy before is removed": ("prune.renamed=kill@2", (0,)),
    "in a step": ("training.stepped=kill@17", BOTH),
    "in a batch": ("training.batch=kill@15", BOTH),
    "between epochs": ("training.epoch-ended=kill@2", BOTH),
    "in an evaluation": ("training.evaluated=kill@5", (0,)),
}
EVERYDAY = {"rank 1 when all ranks are ready", "rank 0 before the copy has its name"}
CASES = [(rank, *death) for rank in BOTH for death in DEATHS.items() if rank in death[1][1]]


@pytest.mark.parametrize(
    ("rank", "point"),
    [
        pytest.param(rank, point, id=each, marks=() if each in EVERYDAY else pytest.mark.slow)
        for rank, name, (point, _) in CASES
        for each in (f"rank {rank} {name}",)
    ],
)
def test_a_rank_that_is_killed_at_any_moment_costs_what_is_newer_than_the_copy_of_all(
    tmp_path, settings, undisturbed, base, rank, point
):
    run = tmp_path / "run"
    killed(run, failpoints=point, fails_on=rank, **settings)
    check_goes_on_from_memory(run, settings, undisturbed)
    assert list(base.glob("*/*")) == []  # a finished run leaves nothing in memory


@pytest.mark.slow
@pytest.mark.parametrize("rank", BOTH)
@pytest.mark.parametrize("point", ["memory.ready=kill@3", "checkpoint.data.synced=kill@6"])
def test_a_rank_that_leaves_by_os_exit_likewise(tmp_path, settings, undisturbed, rank, point):
    run = tmp_path / "run"
    killed(run, failpoints=point, fails_on=rank, by="exit", **settings)
    check_goes_on_from_memory(run, settings, undisturbed)


@pytest.mark.parametrize("step", [8, *[pytest.param(step, marks=pytest.mark.slow) for step in (9, 11, 15)]])
def test_all_ranks_killed_together_go_on_from_the_copy(tmp_path, settings, undisturbed, step):
    run = tmp_path / "run"
    with Attempt(run, *PACE, **settings) as attempt:
        attempt.wait_for_step(0, step)
        for rank in BOTH:
            attempt.send(rank, signal.SIGKILL)
        assert attempt.wait() == [-signal.SIGKILL] * 2
    check_goes_on_from_memory(run, settings, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("rank", BOTH)
def test_ranks_that_are_steps_apart_have_a_boundary_in_common(tmp_path, settings, rank):
    run = tmp_path / "run"
    pace = ("--step-ms", 60, "--slow-rank-ms", 30, "--samples", 200)
    killed(run, *pace, failpoints="memory.agreed=kill@3", fails_on=rank, **settings)
    whole = tmp_path / "whole"
    run_ranks(whole, "--samples", 200, **SELDOM)
    check_goes_on_from_memory(run, settings, result_of(whole), "--samples", 200)


@pytest.mark.slow
def test_ranks_that_die_again_and_again_go_on_each_time(tmp_path, settings, undisturbed):
    run = tmp_path / "run"
    for rank in (0, 1, 1, 0):
        killed(run, failpoints="memory.ready=kill@3", fails_on=rank, **settings)
    run_ranks(run, **settings)
    assert result_of(run) == undisturbed


RETURNS = {
    "during the resume": ("training.restored=kill", BOTH),
    "while the copy is written to disk": ("checkpoint.staged=kill", (0,)),
    "when the copy is on disk": ("memory.returned=kill", (0,)),
    "in the first step": ("training.stepped=kill", BOTH),
}
RETURN_CASES = [(rank, *death) for rank in BOTH for death in RETURNS.items() if rank in death[1][1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "point"),
    [pytest.param(rank, point, id=f"rank {rank} {name}") for rank, name, (point, _) in RETURN_CASES],
)
def test_a_rank_that_dies_while_the_copy_is_brought_back_loses_nothing(
    tmp_path, settings, undisturbed, rank, point
):
    run = tmp_path / "run"
    killed(run, failpoints="memory.ready=kill@3", fails_on=1 - rank, **settings)
    step = in_memory(run)
    killed(run, failpoints=point, fails_on=rank, **settings)
    run_ranks(run, **settings)
    assert read_resume(RunPaths(run).resume).step >= step
    assert result_of(run) == undisturbed


HARMS = {
    "flipped": flip_bit,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "gone": lambda file: file.unlink(),
    "of the other rank": lambda file: shutil.copyfile(file.with_name("rank-00000.safetensors"), file),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_copy_that_is_torn_for_one_rank_is_used_by_none(tmp_path, settings, undisturbed, harm):
    run = tmp_path / "run"
    killed(run, failpoints="memory.ready=kill@3", fails_on=1, **settings)
    (copy,) = memory_place(RunPaths(run).checkpoints).glob("step-*")
    harm(copy / "rank-00001.safetensors")
    output = run_ranks(run, **settings).output
    assert output.count("a copy in memory is not used: step-") == 1, output
    assert read_resume(RunPaths(run).resume).step == 0
    assert result_of(run) == undisturbed


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_copy_of_another_number_of_ranks_is_not_used(tmp_path, settings, world_size):
    run = tmp_path / "run"
    killed(run, failpoints="memory.ready=kill@3", fails_on=1, **settings)
    output = run_ranks(run, world_size=world_size, **settings).output
    assert f"it is of 2 ranks, and {world_size} go on" in output
    assert read_resume(RunPaths(run).resume).step == 0


def test_a_copy_is_of_one_boundary_and_holds_the_files_of_all_ranks(tmp_path, settings):
    run = tmp_path / "run"
    killed(run, failpoints="memory.kept=kill@3", fails_on=0, **settings)
    store = CheckpointStore(memory_place(RunPaths(run).checkpoints))
    copy = store.checkpoints()[-1]
    assert copy.step == in_memory(run)
    assert copy.manifest.world_size == 2
    assert [entry.name for entry in copy.manifest.files] == [
        f"rank-0000{rank}.{kind}" for rank in BOTH for kind in ("json", "safetensors")
    ]
    store.verify(copy)


def test_ranks_that_average_their_gradients_likewise(tmp_path, settings):
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_ranks(whole, "--ddp", **SELDOM)
    for rank in BOTH:
        killed(run, "--ddp", *PACE, failpoints="memory.agreed=kill@3", fails_on=rank, **settings)
        assert in_memory(run) is not None
    run_ranks(run, "--ddp", **settings)
    assert result_of(run) == result_of(whole)


@pytest.mark.slow
def test_ranks_with_parts_of_a_sharded_state_likewise(tmp_path, settings):
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_ranks(whole, script=SHARDED_LOOP, **SELDOM)
    killed(run, *PACE, script=SHARDED_LOOP, failpoints="memory.agreed=kill@3", fails_on=1, **settings)
    check_goes_on_from_memory(run, settings, result_of(whole), script=SHARDED_LOOP)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--ddp",)], ids=["apart", "ddp"])
def test_drains_at_random_times_with_copies_never_hang_and_never_disagree(tmp_path, settings, arguments):
    chance = random.Random(len(arguments))
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_ranks(whole, "--samples", 400, *arguments, **SELDOM)
    step = 0
    for _ in range(5):
        pace = ("--step-ms", 8, "--slow-rank-ms", chance.choice([0, 12]))
        with Attempt(run, "--samples", 400, *pace, *arguments, **settings) as attempt:
            attempt.wait_for_step(chance.choice(BOTH), step + chance.randint(1, 20))
            for rank in chance.choice([(0,), (1,), BOTH]):
                attempt.send(rank, signal.SIGTERM)
            assert attempt.wait() == [DRAINED, DRAINED], attempt.output
        step = CheckpointStore.of_run(RunPaths(run)).checkpoints()[-1].step
    run_ranks(run, "--samples", 400, *arguments, **settings)
    assert result_of(run) == result_of(whole)


def test_saves_on_disk_beside_copies_are_those_of_a_run_without_copies(tmp_path, base, settings):
    names = {}
    often = {"TRAINERD_CHECKPOINT_EVERY_STEPS": 3, "TRAINERD_CHECKPOINT_KEEP_LAST": "all"}
    for name, environment in {"with": settings | often, "without": SELDOM | often}.items():
        run = tmp_path / name
        run_ranks(run, "--step-ms", 25, **environment)
        found = CheckpointStore.of_run(RunPaths(run)).checkpoints()
        names[name] = [(each.name, each.manifest.reason, each.manifest.files) for each in found]
    assert names["with"] == names["without"]
    assert list(base.glob("*/*")) == []
