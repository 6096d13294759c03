"""Weights & Biases, offline: one run with one curve, whatever interrupted it.

An attempt that begins removes the offline folder of the attempt before and writes all points so far, from the
metric history, into a new one under the same identity. ``wandb sync`` uploads it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wandb

from trainerd.errors import UserError
from trainerd.training.integrations.history_curve import HistoryCurve
from trainerd.training.integrations.tracker_ids import kept_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.training.session import Session

STEP: Final = "step"
"""The axis of all curves."""
PROJECT: Final = "trainerd"
"""Where ``$WANDB_PROJECT`` is silent."""
_MODES: Final = frozenset({"offline", "dryrun", "disabled"})


def follow(session: Session, folder: str | Path | None = None) -> None:
    """Write what a session logs and reports into an offline run of Weights & Biases, on rank 0.

    Args:
        session: An open session that has not begun to train.
        folder: Where the folder ``wandb`` is made: ``$WANDB_DIR`` or the run folder if none is given.

    Raises:
        UserError: The run has begun already, or ``$WANDB_MODE`` asks for another mode.
    """
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in _MODES:
        raise UserError(
            f"WANDB_MODE={mode}: a run that may be killed is written offline",
            hint="leave WANDB_MODE out, and run `wandb sync` on the folder at the end",
        )
    if session.rank == 0:
        where = Path(folder or os.environ.get("WANDB_DIR") or session.run_dir)
        session.follow_history(WandbCurve(session.run_dir, where, mode))


class WandbCurve(HistoryCurve):
    """The offline run of one attempt.

    Args:
        run_dir: The run folder.
        folder: Where the folder ``wandb`` is made.
        mode: Mode of ``wandb.init``.
    """

    NAME = "wandb"

    def __init__(self, run_dir: Path, folder: Path, mode: str) -> None:
        super().__init__(run_dir)
        self._folder = folder
        self._mode = mode
        self._run: Any = None

    def begin(self) -> None:
        self.end()
        identity = kept_id(self._run_dir, "wandb", lambda: uuid.uuid4().hex[:16])
        for former in (self._folder / "wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(former)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or self._run_dir.name,
            id=identity,
            dir=str(self._folder),
            mode=self._mode,  # type: ignore[arg-type] # checked where it is made
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric=STEP)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        if values:
            self._run.log({STEP: step, **values})

    def flush(self) -> None:
        """What is logged is with the process of wandb, which outlives this one."""

    def end(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish()
