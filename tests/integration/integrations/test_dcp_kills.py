"""A rank that is killed at any act of a save leaves no torn checkpoint: the newest is whole, and loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.integrations.disturbed_ranks import run_ranks
from tests.support.rank_server import RankServer
from trainerd.integrations.dcp import verify

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = Path(__file__).with_name("dcp_job.py")
ACTS_MAX = 40


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in folder.glob("step-*"))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_kill_at_any_act_of_a_save_leaves_the_newest_checkpoint_whole(rank: int, tmp_path: Path) -> None:
    killed = 0
    modules = ("torch.distributed.checkpoint", "torch.distributed.tensor", "trainerd.integrations.dcp")
    with RankServer(*modules, "torch._dynamo") as server:
        assert run_ranks(server, JOB, tmp_path, "", {"JOB_RANK": rank, "JOB_ACT": 0}) == [0, 0]
        for act in range(1, ACTS_MAX):
            before = steps(tmp_path)
            # Each attempt loads what the one before has left, and asserts that it is of one step.
            codes = run_ranks(server, JOB, tmp_path, f":KILL@{rank}", {"JOB_RANK": rank, "JOB_ACT": act})
            for path in tmp_path.glob("step-*"):
                verify(path)
            if codes == [0, 0]:
                assert steps(tmp_path) == [*before, before[-1] + 1]
                break
            said = (tmp_path / f"rank-{1 - rank}.log").read_text()[-3000:]
            assert codes[rank] == -9, said
            assert codes[1 - rank] not in {0, 85}, said
            assert steps(tmp_path) in (before, [*before, before[-1] + 1])
            killed += 1
        else:
            raise AssertionError(f"a save has more than {ACTS_MAX} acts")
    assert killed >= (8 if rank == 0 else 3), "the coordinator has more to write than the other rank"
