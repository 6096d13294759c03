"""TensorBoard: one curve of a run, whatever interrupted it, made from the metric history.

An attempt that begins writes a new event file with all points so far, and removes those of the attempts
before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch.utils.tensorboard import SummaryWriter

from trainerd.training.integrations.history_curve import HistoryCurve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.training.session import Session

SUFFIX: Final = ".trainerd"
"""Ends the names of event files that are ours, and may be removed."""
FOLDER: Final = "tensorboard"


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
        curve = TensorBoardCurve(session.run_dir, Path(log_dir or session.run_dir / FOLDER))
        session.follow_history(curve)
        session.on_leave(curve.flush)


class TensorBoardCurve(HistoryCurve):
    """The event file of one attempt.

    Args:
        run_dir: The run folder.
        folder: Where the events go.
    """

    NAME = "tensorboard"

    def __init__(self, run_dir: Path, folder: Path) -> None:
        super().__init__(run_dir)
        self._folder = folder
        self._former: list[Path] = []
        self._writer: Any = None

    def begin(self) -> None:
        self.end()
        self._former = list(self._folder.glob(f"events.out.tfevents.*{SUFFIX}"))
        self._writer = SummaryWriter(str(self._folder), filename_suffix=SUFFIX)

    def begun(self) -> None:
        self._writer.flush()
        for each in self._former:
            each.unlink(missing_ok=True)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
