"""The TensorBoard curve of a run that was really killed and drained is that of an undisturbed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="tensorboard is not installed")

from tests.integration.integrations.disturbed_runs import compare_runs, run_attempts
from tests.support.event_files import points
from trainerd.contract.metric_history import read_history

pytestmark = [pytest.mark.torch, pytest.mark.slow]

JOB = Path(__file__).with_name("tracker_job.py")
STRIKES = ("0.1:KILL", "0.5:TERM", "epoch0:KILL", "1.0:KILL", "1.6:TERM", "2.3:INT", "2.6:KILL")


@pytest.mark.timeout(300)
def test_kills_and_drains_lose_and_double_no_point(tmp_path: Path) -> None:
    drained = {"JOB_OUT": str(tmp_path / "drained"), "JOB_STRIKE": "0.5:TERM"}
    (tmp_path / "flush").mkdir()
    assert run_attempts(JOB, tmp_path / "flush", [drained]) == [85]
    history = read_history(tmp_path / "drained" / "run" / "metrics.jsonl")
    assert [row["step"] for row in history.rows] == [1, 2, 3, 4, 5, 6]
    seen = [step for tag, step, _ in points(tmp_path / "drained" / "run" / "tensorboard") if tag == "total"]
    assert seen == [1, 2, 3, 4, 5, 6], "a drain leaves nothing in a buffer"

    compare_runs(JOB, tmp_path, STRIKES, first_batch="0.0:KILL")
    found = [points(tmp_path / name / "run" / "tensorboard") for name in ("undisturbed", "disturbed")]
    assert json.dumps(found[1]) == json.dumps(found[0])
    assert len(found[0]) == 3 * 7 * 2 + 3
