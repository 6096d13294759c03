"""Reads the points of a run's curves from the files of Weights & Biases (offline) and MLflow (file store)."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Points = list[tuple[str, int, float]]
BLOCK_BYTES = 32768
LOOK_S = 0.01


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
