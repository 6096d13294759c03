"""Runs at Weights & Biases (offline) and MLflow (file store) that were interrupted have each point once."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import trainerd
from tests.support.in_process import Crash
from trainerd.errors import UserError
from trainerd.training.engine.run_saves import RunSaves

pytestmark = [pytest.mark.torch, pytest.mark.slow]

Points = list[tuple[str, int, float]]
BLOCK_BYTES = 32768
LOOK_S = 0.01


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


def wandb_points(run: Path) -> tuple[str, Points]:
    """Return the identity and the points of the only offline run, once its end is on disk.

    The process of wandb writes the file, and says that a run is over before it has written the last of it.
    """
    [path] = (run / "wandb").glob("offline-run-*/*.wandb")
    while "exit" not in [record.WhichOneof("record_type") for record in wandb_records(path)]:
        time.sleep(LOOK_S)
    found: Points = []
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            names = set(row) - {"step", "_step", "_runtime", "_timestamp"}
            found += [(name, int(row["step"]), float(row[name].strip('"'))) for name in names]
    return path.stem, found


def wandb_records(path: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    return [wandb_internal_pb2.Record.FromString(data) for data in log_records(path.read_bytes())]


def log_records(data: bytes) -> list[bytes]:
    """Return the whole records of a file in LevelDB's log format, which wandb uses."""
    found, part, at = [], b"", 7
    while at + 7 <= len(data):
        if BLOCK_BYTES - at % BLOCK_BYTES < 7:
            at += BLOCK_BYTES - at % BLOCK_BYTES
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + length > len(data):
            break
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(part)
            part = b""
    return found


def mlflow_points(run: Path) -> tuple[str, Points]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(run / "mlruns").as_uri())
    [experiment] = [each for each in client.search_experiments() if each.name == "trainerd"]
    [only] = client.search_runs([experiment.experiment_id])
    points = [
        (each.key, each.step, each.value)
        for name in only.data.metrics
        for each in client.get_metric_history(only.info.run_id, name)
    ]
    assert (only.info.status == "FINISHED") == (run / "finished.json").exists()
    return only.info.run_id, points


READERS: dict[str, Callable[[Path], tuple[str, Points]]] = {"wandb": wandb_points, "mlflow": mlflow_points}


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
