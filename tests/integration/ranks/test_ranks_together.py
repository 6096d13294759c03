"""Several ranks without a supervisor: they save, resume and stop as one, whoever is struck."""

from __future__ import annotations

import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from tests.support.checkpoints import flip_bit
from tests.support.rank_runs import Attempt, run_ranks
from tests.support.training_runs import result_of
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.errors import MismatchError
from trainerd.training.distributed.joint_resume import resume_together
from trainerd.training.distributed.rank_store import Ranks
from trainerd.training.state.objects import TrackedObjects

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

STEPS = 24
BOTH = (0, 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    run_ranks(run)
    return result_of(run)


def newest(run):
    return CheckpointStore.of_run(RunPaths(run)).checkpoints()[-1]


def test_each_rank_has_files_of_its_own_in_one_checkpoint(undisturbed):
    assert sorted(undisturbed.files) == [
        f"rank-0000{rank}.{kind}" for rank in BOTH for kind in ("json", "safetensors")
    ]
    assert len(undisturbed.rows) == STEPS


@pytest.mark.parametrize("struck", [(0,), (1,), BOTH], ids=str)
def test_ranks_that_are_far_apart_drain_at_the_same_step(tmp_path, undisturbed, struck):
    run = tmp_path / "run"
    with Attempt(run, "--slow-rank-ms", 40, "--step-ms", 2) as attempt:
        attempt.wait_for_step(1, 2)
        for rank in struck:
            attempt.send(rank, signal.SIGTERM)
        assert attempt.wait() == [DRAINED, DRAINED], attempt.output
        last = [max(used.step for used in attempt.used if used.rank == rank) for rank in BOTH]
        assert attempt.output.count("2 ranks were started, and the first step is done without a process") == 1
    assert last == [newest(run).step - 1] * 2
    assert newest(run).manifest.reason == "drain"
    run_ranks(run)
    assert result_of(run) == undisturbed


def test_a_rank_that_is_killed_ends_the_others_and_the_next_attempt_is_exact(tmp_path, undisturbed):
    run = tmp_path / "run"
    for struck, step in ((1, 7), (0, 13)):
        with Attempt(run, "--step-ms", 20) as attempt:
            attempt.wait_for_step(struck, step)
            attempt.send(struck, signal.SIGKILL)
            codes = attempt.wait()
            assert codes[struck] == -signal.SIGKILL
            assert codes[1 - struck] not in {0, DRAINED}
            assert "RankLostError" in attempt.output
    run_ranks(run)
    assert result_of(run) == undisturbed


def test_a_rank_deep_in_a_step_ends_soon_after_another_one_was_killed(tmp_path):
    with Attempt(tmp_path / "run", "--stall-at", 3, "--step-ms", 5) as attempt:
        attempt.wait_for_word(0, "stalls")
        attempt.send(1, signal.SIGKILL)
        assert attempt.wait(20) == [1, -signal.SIGKILL]
    assert "RankLostError: rank 1" in attempt.output


@pytest.mark.parametrize("rank", BOTH)
@pytest.mark.parametrize(
    "place", ["checkpoint.data.synced=kill@5", "ranks.announced=kill@2", "checkpoint.staged=kill@2"]
)
def test_a_rank_that_dies_in_a_save_leaves_the_former_checkpoint(tmp_path, undisturbed, place, rank):
    run = tmp_path / "run"
    with Attempt(run, failpoints=place, fails_on=rank) as attempt:
        codes = attempt.wait()
    is_passed_by = {"ranks.announced": 1, "checkpoint.staged": 0}.get(place.partition("=")[0], rank)
    if is_passed_by != rank:
        assert codes == [0, 0], attempt.output
    else:
        assert codes[rank] == -signal.SIGKILL, attempt.output
    run_ranks(run)
    assert result_of(run) == undisturbed


def test_a_save_by_the_clock_is_made_by_all_ranks_at_the_same_step(tmp_path):
    run = tmp_path / "run"
    by_the_clock = {"TRAINERD_CHECKPOINT_EVERY_STEPS": "never", "TRAINERD_CHECKPOINT_EVERY_SECONDS": "0.05"}
    run_ranks(run, "--step-ms", 20, "--slow-rank-ms", 10, **by_the_clock, TRAINERD_CHECKPOINT_KEEP_LAST="all")
    reasons = [each.manifest.reason for each in CheckpointStore.of_run(RunPaths(run)).checkpoints()]
    assert reasons.count("every 0.05 seconds") >= 3


def test_a_state_that_does_not_fit_on_one_rank_is_refused_by_all(tmp_path):
    run = tmp_path / "run"
    run_ranks(run, "--epochs", 1)
    before = newest(run).name
    with Attempt(run, "--epochs", 2, "--misfit-rank", 1) as attempt:
        codes = attempt.wait()
        assert 0 not in codes, attempt.output
        assert "rank 1: step-" in attempt.logs[0].read_text()
        assert attempt.used == []
    assert newest(run).name == before
    run_ranks(run, "--epochs", 2)


def test_a_checkpoint_that_one_rank_alone_sees_damaged_is_passed_over_by_all(tmp_path):
    """Rank 1 has a copy of the folder in place of a network filesystem that shows it other bytes."""
    run = tmp_path / "run"
    run_ranks(run, "--epochs", 1)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    stores = [CheckpointStore.of_run(RunPaths(root)) for root in (run, copy)]
    damaged, before = (stores[1].checkpoints()[index] for index in (-1, -2))
    flip_bit(damaged.path / "rank-00001.safetensors")
    words = HashStore()

    def resume(rank):
        ranks = Ranks(words, rank=rank, world_size=2)
        with pytest.raises(MismatchError) as raised:  # no object is tracked here
            resume_together(ranks, stores[rank], stores[rank].newest_sound, TrackedObjects())
        return str(raised.value)

    with stores[0].lock(), ThreadPoolExecutor(2) as pool:
        said = list(pool.map(resume, BOTH))
    assert all(before.name in each and damaged.name not in each for each in said), said
    assert [each.name for each in stores[0].quarantined()] == [damaged.name]


def test_a_drain_is_heard_while_rank_0_alone_evaluates(tmp_path):
    run = tmp_path / "run"
    with Attempt(run, "--epochs", 1, "--evaluate-ms", 300) as attempt:
        attempt.wait_for_step(0, 8)
        attempt.send(0, signal.SIGTERM)
        assert len(set(attempt.wait())) == 1, attempt.output
    run_ranks(run, "--epochs", 1)


@pytest.mark.parametrize("arguments", [(), ("--ddp",)], ids=["apart", "ddp"])
def test_drains_at_random_times_never_hang_and_never_disagree(tmp_path, arguments):
    seed = random.Random(len(arguments))
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_ranks(whole, "--samples", 400, *arguments)
    drained = 0
    for _ in range(5):
        with Attempt(
            run, "--samples", 400, "--step-ms", 8, "--slow-rank-ms", seed.choice([0, 12]), *arguments
        ) as attempt:
            attempt.wait_for_step(seed.choice(BOTH), newest_step(run) + seed.randint(1, 20))
            for rank in seed.choice([(0,), (1,), BOTH]):
                attempt.send(rank, seed.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
            codes = attempt.wait()
        assert codes == [DRAINED, DRAINED], attempt.output
        drained += 1
    run_ranks(run, "--samples", 400, *arguments)
    assert drained == 5
    assert result_of(run) == result_of(whole)


def newest_step(run):
    present = (
        CheckpointStore.of_run(RunPaths(run)).checkpoints() if RunPaths(run).checkpoints.exists() else ()
    )
    return present[-1].step if present else 0
