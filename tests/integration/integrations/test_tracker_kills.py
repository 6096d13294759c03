"""The curves at Weights & Biases and MLflow of a run that was really killed are an undisturbed run's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.integrations.disturbed_runs import compare_runs
from tests.support.tracker_points import READERS

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = Path(__file__).with_name("tracker_job.py")
STRIKES = ("0.1:KILL", "0.5:TERM", "epoch0:KILL", "1.6:TERM", "2.3:INT", "2.6:KILL")


@pytest.mark.parametrize("tracker", sorted(READERS))
def test_kills_and_drains_lose_and_double_no_point(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(tracker, reason=f"{tracker} is not installed")
    for name in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    compare_runs(JOB, tmp_path, STRIKES, first_batch="0.0:KILL", tracker=tracker)
    undisturbed, disturbed = [
        READERS[tracker](tmp_path / name / "run")[1] for name in ("undisturbed", "disturbed")
    ]
    assert sorted(map(repr, disturbed)) == sorted(map(repr, undisturbed))
    assert len(undisturbed) == 3 * 7 * 2 + 3
