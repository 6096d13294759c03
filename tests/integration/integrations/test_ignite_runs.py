"""Ignite under real kills and real requests to stop: the end is that of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ignite", reason="pytorch-ignite is not installed")

pytestmark = [pytest.mark.torch, pytest.mark.slow]

JOB = Path(__file__).with_name("ignite_job.py")
LIMIT_S = 100.0
STRIKES = {"1:KILL": -9, "5:TERM": 85, "6:KILL": -9, "validation1:TERM": 85, "epoch2:KILL": -9, "9:INT": 85}
"""Where and how the attempts of a disturbed run end, in order, and with which exit code."""


def attempt(out: Path, strike: str, *, workers: int, accumulate: int) -> int:
    environment = {
        **os.environ,
        "JOB_OUT": str(out),
        "JOB_STRIKE": strike,
        "JOB_WORKERS": str(workers),
        "JOB_ACCUMULATE": str(accumulate),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, JOB], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert result.returncode in {0, 85, -9}, result.stderr
    return result.returncode


@pytest.mark.timeout(600)
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_and_drains_change_nothing(workers: int, accumulate: int, tmp_path: Path) -> None:
    how: dict[str, Any] = {"workers": workers, "accumulate": accumulate}
    assert attempt(tmp_path / "a", "", **how) == 0
    codes = {strike: attempt(tmp_path / "b", strike, **how) for strike in STRIKES}
    assert codes == STRIKES
    assert not (tmp_path / "b" / "run" / "finished.json").exists()
    assert attempt(tmp_path / "b", "", **how) == 0
    found = [json.loads((tmp_path / name / "final.json").read_text()) for name in "ab"]
    assert found[0] == found[1]
    assert attempt(tmp_path / "b", "13:KILL", **how) == 0  # a finished run trains nothing
