"""Runs a job undisturbed, and disturbed by a list of strikes, and returns what both left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.training_runs import OF_A_JOB
from trainerd.contract.metric_history import read_history

ATTEMPTS = Path(__file__).with_name("attempts.py")

LIMIT_S = 560.0
"""How long the attempts of one test may take, on a busy machine."""

KILLED, DRAINED = -9, 85


def expected_code(strike: str) -> int:
    """Return the exit code of an attempt that is struck so: ``PLACE:SIGNAL[@RANK]`` or ``POINT=kill@N``."""
    return KILLED if ":KILL" in strike or "=kill" in strike else DRAINED


def compare_runs(
    job: Path, folder: Path, strikes: Sequence[str], *, first_batch: str = "3:KILL", **settings: object
) -> None:
    """Assert that the disturbed run ends as the undisturbed one, and that a finished one trains nothing.

    Args:
        job: The job.
        folder: For both runs.
        strikes: One for each attempt of the disturbed run.
        first_batch: A strike that an attempt meets if it trains from the beginning.
        settings: For the job.
    """
    common = {f"JOB_{name.upper()}": str(value) for name, value in settings.items()}
    plan = [
        {**common, "JOB_OUT": str(folder / "undisturbed"), "JOB_STRIKE": ""},
        *({**common, "JOB_OUT": str(folder / "disturbed"), **_strike(each)} for each in (*strikes, "")),
        {**common, "JOB_OUT": str(folder / "disturbed"), **_strike(first_batch)},
    ]
    codes = run_attempts(job, folder, plan)
    assert codes[0] == 0
    assert dict(enumerate(codes[1:-2])) == {n: expected_code(each) for n, each in enumerate(strikes)}
    assert codes[-2:] == [0, 0], "the run ends, and nothing is trained when it is started again"
    found = [_final(folder / name) for name in ("undisturbed", "disturbed")]
    for part in found[0]:
        assert found[1][part] == found[0][part], part
    assert found[1].keys() == found[0].keys()
    assert found[0]["rows"], "something is logged"


def _strike(strike: str) -> dict[str, str]:
    if "=" in strike:
        return {"JOB_STRIKE": "", "TRAINERD_FAILPOINTS": strike}
    return {"JOB_STRIKE": strike, "TRAINERD_FAILPOINTS": ""}


def _final(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "final.json").read_text())
    history = read_history(folder / "run" / "metrics.jsonl")
    return {**found, "rows": history.rows, "reports": history.reports}


def run_attempts(job: Path, folder: Path, plan: Sequence[dict[str, str]]) -> list[int]:
    """Run attempts of a job, one for each environment of a plan, and return their exit codes."""
    plan_file = folder / "plan.json"
    plan_file.write_text(json.dumps(plan))
    environment = {
        **os.environ,
        **OF_A_JOB,
    }
    result = subprocess.run(
        [sys.executable, ATTEMPTS, job, plan_file],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    codes: list[int] = json.loads(result.stdout.splitlines()[-1])
    assert len(codes) == len(plan), (codes, result.stderr[-3000:])
    return codes
