"""Runs at Weights & Biases (offline) and MLflow (file store) that were interrupted have each point once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import trainerd
from tests.support.in_process import Crash
from tests.support.tracker_points import READERS
from trainerd.errors import UserError
from trainerd.training.engine.run_saves import RunSaves

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def train(run: Path, tracker: str, *, crash_at: int | None = None) -> None:
    with (
        mock.patch.object(RunSaves, "flush_held", lambda saves: saves.newest),
        trainerd.session(
            run, every={"steps": 3, "seconds": None, "epochs": None}, strict=False, trackers=tracker
        ) as session,
    ):
        for epoch in session.epochs(2):
            for number in session.batches(range(5)):
                session.log(loss=1 / (session.step + 1), number=math.nan if number == 2 else number)
                if session.step == crash_at:
                    raise Crash
            session.report(score=epoch)


@pytest.fixture(params=sorted(READERS))
def tracker(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    for name in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return str(request.param)


def test_kills_lose_and_double_no_point_and_keep_the_run(tmp_path: Path, tracker: str) -> None:
    identities = set()
    for crash_at in (4, 5, 8):
        with pytest.raises(Crash):
            train(tmp_path / "crashed", tracker, crash_at=crash_at)
        identities.add(READERS[tracker](tmp_path / "crashed")[0])
    train(tmp_path / "crashed", tracker)
    identity, found = READERS[tracker](tmp_path / "crashed")
    wanted = [("loss", step, 1 / step) for step in range(1, 11)]
    numbers = [0, 1, math.nan, 3, 4] * 2
    wanted += [("number", step, number) for step, number in enumerate(numbers, 1)]
    wanted += [("report/score", 5, 0), ("report/score", 10, 1)]
    expected = [(name, step, float(value)) for name, step, value in wanted]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert identities == {identity}


def test_an_online_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="WANDB_MODE=online"), trainerd.session(tmp_path, trackers="wandb"):
        pass
