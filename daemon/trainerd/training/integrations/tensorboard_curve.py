"""TensorBoard: one curve of a run, whatever interrupted it, made from the metric history.

The history says of each step which value counts. An attempt that begins writes a new event file with all
points so far and removes those of the attempts before; then each line of the history becomes points. So what
an attempt had in its buffers when it was killed is not missing, and steps that are run again are there once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch.utils.tensorboard import SummaryWriter

from trainerd.contract.metric_history import read_history
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.training.session import Session

SUFFIX: Final = ".trainerd"
"""Ends the names of event files that are ours, and may be removed."""
FOLDER: Final = "tensorboard"
_PLACE: Final = {"step", "epoch", "batch", "digest", "report"}


def follow(session: Session, log_dir: str | Path | None = None) -> None:
    """Write what a session logs and reports as TensorBoard events, on rank 0.

    ``session.log(loss=…)`` is the curve ``loss``, ``session.report(accuracy=…)`` is ``report/accuracy``;
    both are over the steps of the run.

    Args:
        session: An open session that has not begun to train.
        log_dir: Folder for the events, ``tensorboard`` in the run folder if none is given. Event files of
            others in it are left alone.

    Raises:
        UserError: The run has begun already.
    """
    if session.rank == 0:
        curve = TensorBoardCurve(session.run_dir / "metrics.jsonl", Path(log_dir or session.run_dir / FOLDER))
        session.follow_history(curve)
        session.on_leave(curve.flush)


class TensorBoardCurve:
    """The event file of one attempt.

    Args:
        history: The metric history.
        folder: Where the events go.
    """

    def __init__(self, history: Path, folder: Path) -> None:
        self._history = history
        self._folder = folder
        self._writer: Any = None

    def line(self, line: bytes) -> None:
        """Take a line that was appended to the history."""
        record = json.loads(line)
        if "format" in record or "resume" in record:
            self._begin()
        else:
            self._add(record, is_report=bool(record.get("report")))

    def flush(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write out what is buffered, and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _begin(self) -> None:
        self.close()
        former = list(self._folder.glob(f"events.out.tfevents.*{SUFFIX}"))
        self._writer = SummaryWriter(str(self._folder), filename_suffix=SUFFIX)
        found = read_history(self._history)
        for row in found.rows:
            self._add(row, is_report=False)
        for report in found.reports:
            self._add(report, is_report=True)
        self._writer.flush()
        for each in former:
            each.unlink(missing_ok=True)

    def _add(self, record: Mapping[str, Any], *, is_report: bool) -> None:
        if self._writer is None:
            raise UserError("the metric history goes on in a file that did not begin")
        for name, value in record.items():
            if name not in _PLACE:
                tag = f"report/{name}" if is_report else name
                self._writer.add_scalar(tag, float(value), record["step"])
