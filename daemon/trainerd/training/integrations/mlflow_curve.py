"""MLflow: one run with one curve, whatever interrupted it, made from the metric history.

MLflow cannot take points back. An attempt that begins reads which points the run has, and adds those that are
missing: steps that are run again from a checkpoint are there already.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from trainerd.contract.paths import RunPaths
from trainerd.training.integrations.history_curve import HistoryCurve
from trainerd.training.integrations.tracker_ids import kept_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainerd.training.session import Session

EXPERIMENT: Final = "trainerd"
"""Where ``$MLFLOW_EXPERIMENT_NAME`` is silent."""
BUFFER_LIMIT_S: Final = 2.0
"""After so many seconds points are written. The history has them in the meantime."""
BUFFERED_MAX: Final = 500
REQUEST_LIMITS: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Environment variables of MLflow: training waits for a server that is gone for seconds, not for minutes.
What the user has set stays."""
_REFUSED: Final = re.compile(r"[^\w\-. :/]", re.ASCII)


def follow(session: Session, tracking_uri: str | None = None) -> None:
    """Write what a session logs and reports into a run of MLflow, on rank 0.

    Args:
        session: An open session that has not begun to train.
        tracking_uri: Of the store: ``$MLFLOW_TRACKING_URI``, or ``mlruns`` in the run folder if none is
            given.

    Raises:
        UserError: The run has begun already.
    """
    if session.rank == 0:
        uri = (
            tracking_uri
            or os.environ.get("MLFLOW_TRACKING_URI")
            or (session.run_dir / "mlruns").absolute().as_uri()
        )
        curve = MlflowCurve(session.run_dir, uri)
        session.follow_history(curve)
        session.on_leave(curve.flush)


class MlflowCurve(HistoryCurve):
    """The points that an attempt adds to the run.

    Args:
        run_dir: The run folder.
        tracking_uri: Of the store.
    """

    NAME = "mlflow"

    def __init__(self, run_dir: Path, tracking_uri: str) -> None:
        super().__init__(run_dir)
        if "://" not in tracking_uri or tracking_uri.startswith("file:"):
            # MLflow refuses its own file store, unless one says this.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        for name, value in REQUEST_LIMITS.items():
            os.environ.setdefault(name, value)
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._id = ""
        self._there: Counter[tuple[str, int]] = Counter()
        self._buffer: list[Any] = []
        self._flushed_s = 0.0

    def begin(self) -> None:
        self.flush()
        self._id = kept_id(self._run_dir, "mlflow", self._make_run)
        self._client.update_run(self._id, status="RUNNING")
        self._there.clear()
        for name in self._client.get_run(self._id).data.metrics:
            self._there.update((name, each.step) for each in self._client.get_metric_history(self._id, name))

    def begun(self) -> None:
        self.flush()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        for name, value in values.items():
            key = _REFUSED.sub("_", name)
            if self._there[key, step] > 0:
                self._there[key, step] -= 1
            else:
                self._buffer.append(Metric(key, value, now_ms, step))
        if len(self._buffer) >= BUFFERED_MAX or time.monotonic() - self._flushed_s >= BUFFER_LIMIT_S:
            self.flush()

    def flush(self) -> None:
        points, self._buffer = self._buffer, []
        for begin in range(0, len(points), BUFFERED_MAX):
            self._client.log_batch(self._id, metrics=points[begin : begin + BUFFERED_MAX])
        self._flushed_s = time.monotonic()

    def end(self) -> None:
        self.flush()
        if RunPaths(self._run_dir).finished.exists():
            self._client.set_terminated(self._id)

    def _make_run(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        made: str = self._client.create_run(experiment, run_name=self._run_dir.name).info.run_id
        return made
