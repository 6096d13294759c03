"""A loop with Accelerate under real kills and requests to stop ends as an undisturbed one, bit for bit."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.integration.integrations.disturbed_runs import compare_runs, expected_code
from tests.support.rank_runs import free_port
from tests.support.rank_server import RankServer
from tests.support.training_runs import REPOSITORY, training_environment

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed"),
]

JOB = Path(__file__).with_name("accelerate_job.py")

STRIKES = {
    1: (
        "0.0:KILL",  # the first batch, before any checkpoint
        "0.2:TERM",
        "0.5:KILL",
        "checkpoint.data.written=kill",  # during a save
        "0.10:KILL",  # the last batch of an epoch
        "validation0:TERM",
        "epoch1:KILL",  # between two epochs
        "1.3:INT",
        "1.7:TERM",  # a resume of a resume, within one epoch and into the next
        "2.9:KILL",
    ),
    4: (
        "0.5:TERM",  # within a step of four batches
        "0.10:TERM",  # the last batch of an epoch, which ends a step of three
        "validation1:KILL",
        "2.6:KILL",
    ),
}
"""By how many batches a step takes: 11 batches an epoch."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("workers", "accumulate"), [(0, 1), (2, 4)])
def test_kills_and_drains_change_nothing(workers: int, accumulate: int, tmp_path: Path) -> None:
    compare_runs(
        JOB, tmp_path, STRIKES[accumulate], first_batch="0.0:KILL", workers=workers, accumulate=accumulate
    )


RANKS_LIMIT_S = 120.0


def run_ranks(server: RankServer, out: Path, strike: str) -> list[int]:
    out.mkdir(exist_ok=True)
    port = free_port()
    ranks = [
        server.launch(
            JOB,
            [],
            training_environment(
                out / "run",
                PYTHONPATH=f"{REPOSITORY / 'daemon'}:{REPOSITORY}",
                RANK=rank,
                LOCAL_RANK=rank,
                WORLD_SIZE=2,
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                JOB_OUT=out,
                JOB_STRIKE=strike,
                JOB_ACCUMULATE=2,
                JOB_WORKERS=0,
            ),
            out / f"rank-{rank}.log",
        )
        for rank in range(2)
    ]
    return [rank.wait(RANKS_LIMIT_S) for rank in ranks]


@pytest.mark.timeout(600)
def test_two_ranks_stop_together_and_go_on(tmp_path: Path) -> None:
    def final(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / name / "final.json").read_text())
        return found

    strikes = ("0.1:TERM", "1.3:KILL", "validation1:KILL", "2.1:TERM")  # of six batches
    with RankServer("accelerate", "torch._dynamo") as server:
        assert run_ranks(server, tmp_path / "plain", "") == [0, 0]
        for strike in strikes:
            codes = run_ranks(server, tmp_path / "struck", strike)
            assert codes == [expected_code(strike)] * 2, (tmp_path / "struck" / "rank-0.log").read_text()
        assert run_ranks(server, tmp_path / "struck", "") == [0, 0]
    assert final("struck") == final("plain")
    assert [each[1] for each in final("plain")["curve"]] == [41] * 3, "samples that fill up are left out"
