"""Runs a job on two ranks, undisturbed and disturbed by a list of strikes, and compares what both left."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.integrations.disturbed_runs import DRAINED, KILLED, expected_code
from tests.support.rank_runs import free_port
from tests.support.rank_server import RankServer
from tests.support.training_runs import PYTHONPATH, training_environment

RANKS = 2
LIMIT_S = 120.0
LEFT_BEHIND_S = 20.0
"""How long a rank may go on once another one was killed, until it is ended as the shim would end it."""


def compare_ranks(
    job: Path, folder: Path, strikes: Sequence[str], *, modules: Sequence[str], **settings: object
) -> dict[str, Any]:
    """Assert that the disturbed run ends as the undisturbed one; return what both left.

    Args:
        job: The job.
        folder: For both runs.
        strikes: One for each attempt of the disturbed run. Ranks agree on a drain one or two steps later: the
            next strike comes after that.
        modules: What the job imports, and is imported for all ranks once.
        settings: For the job.
    """
    variables = {f"JOB_{name.upper()}": value for name, value in settings.items()}
    with RankServer(*modules, "torch._dynamo") as server:
        assert run_ranks(server, job, folder / "undisturbed", "", variables) == [0] * RANKS
        for strike in strikes:
            codes = run_ranks(server, job, folder / "disturbed", strike, variables)
            said = f"{strike}: {codes}\n{(folder / 'disturbed' / 'rank-0.log').read_text()[-4000:]}"
            if expected_code(strike) == DRAINED:
                assert codes == [DRAINED] * RANKS, said
            elif "@" in strike:
                assert codes[int(strike.rpartition("@")[2])] == KILLED, said
                assert not {0, DRAINED} & set(codes), said
            else:  # a rank may find its peer gone before it comes to its own end
                assert KILLED in codes, said
                assert not {0, DRAINED} & set(codes), said
        assert run_ranks(server, job, folder / "disturbed", "", variables) == [0] * RANKS
    undisturbed, disturbed = (
        json.loads((folder / name / "final.json").read_text()) for name in ("undisturbed", "disturbed")
    )
    for part in undisturbed:
        assert disturbed[part] == undisturbed[part], part
    found: dict[str, Any] = undisturbed
    return found


def run_ranks(
    server: RankServer, job: Path, out: Path, strike: str, variables: dict[str, object]
) -> list[int]:
    """Run one attempt on two ranks and return their exit codes."""
    out.mkdir(exist_ok=True)
    port = free_port()
    ranks = [
        server.launch(
            job,
            [],
            training_environment(
                out / "run",
                PYTHONPATH=PYTHONPATH,
                RANK=rank,
                LOCAL_RANK=rank,
                WORLD_SIZE=RANKS,
                LOCAL_WORLD_SIZE=RANKS,
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                JOB_OUT=out,
                JOB_STRIKE=strike,
                **variables,
            ),
            out / f"rank-{rank}.log",
        )
        for rank in range(RANKS)
    ]
    killed = int(strike.rpartition("@")[2]) if ":KILL@" in strike else None
    if killed is not None:
        ranks[killed].wait(LIMIT_S)
        try:
            ranks[1 - killed].wait(LEFT_BEHIND_S)
        except subprocess.TimeoutExpired:
            ranks[1 - killed].send_signal(signal.SIGKILL)
    return [rank.wait(LIMIT_S) for rank in ranks]
