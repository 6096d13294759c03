"""Progress of a job as shown: pure. A live attempt speaks for itself; else its run folder counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.heartbeat import Phase
from trainerd.supervisor.machine.states import LIVE, Finished, Starting

if TYPE_CHECKING:
    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.supervisor.api.saved_progress import SavedProgress
    from trainerd.supervisor.machine.states import Job

IMPORTING: Final = "importing"
"""Phase of an attempt that has started and whose session is not open yet."""

NO_SESSION: Final = "no-session"
"""Phase of an attempt that has opened no session, of a job that never has: it may be one that never will."""


@dataclass(frozen=True)
class JobProgress:
    """Fields of a `JobView` that say how far a job is. None where that is not known."""

    phase: str | None = None
    step: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    batch: int | None = None
    batches: int | None = None
    loss: float | None = None
    checkpoint_step: int | None = None


def job_progress(
    job: Job, *, live: Heartbeat | None, past: Heartbeat | None, saved: SavedProgress | None
) -> JobProgress:
    """Return how far a job is.

    Args:
        job: The job.
        live: What its live attempt said last; None if it has not spoken.
        past: What the attempt before said last; only what it planned counts.
        saved: What is in the run folder, None if it was not observed.
    """
    if live is not None and isinstance(job.state, LIVE) and not _is_loading(live):
        return _spoken(live, live.phase.name.lower(), saved)
    if past is not None and (saved is None or (isinstance(job.state, Finished) and saved.step is None)):
        return _spoken(past, _phase(job, live, is_session=True), saved)
    is_session = past is not None or (saved is not None and saved.step is not None)
    phase = _phase(job, live, is_session=is_session)
    if saved is None:
        return JobProgress(phase)
    plan = live if live is not None and live.epochs >= 0 else past
    # A session that has saved nothing begins at step 0; of a plain command nothing is known.
    zero = 0 if past is not None else None
    return JobProgress(
        phase,
        step=saved.step if saved.step is not None else zero,
        epoch=saved.epoch if saved.step is not None else zero,
        epochs=_known(plan.epochs) if plan is not None else None,
        batch=saved.batch if saved.step is not None else zero,
        batches=_known(plan.batches) if plan is not None else None,
        loss=saved.loss,
        checkpoint_step=saved.step,
    )


def _is_loading(beat: Heartbeat) -> bool:
    """Return whether an attempt does not know yet where it goes on."""
    return beat.phase is Phase.START and beat.resumed_step < 0


def _phase(job: Job, live: Heartbeat | None, *, is_session: bool) -> str | None:
    if not isinstance(job.state, LIVE):
        return None
    if live is not None:
        return live.phase.name.lower()
    return IMPORTING if is_session or isinstance(job.state, Starting) else NO_SESSION


def _spoken(beat: Heartbeat, phase: str | None, saved: SavedProgress | None) -> JobProgress:
    """Return what an attempt said; a checkpoint that it has made since shows that it is further."""
    on_disk = saved.step if saved is not None else None
    step, epoch, batch = beat.step, beat.epoch, beat.batch
    if saved is not None and on_disk is not None and on_disk > step:
        step = on_disk
        epoch = saved.epoch if saved.epoch is not None else epoch
        batch = saved.batch if saved.batch is not None else batch
    return JobProgress(
        phase,
        step=step,
        epoch=epoch,
        epochs=_known(beat.epochs),
        batch=batch,
        batches=_known(beat.batches),
        loss=None if math.isnan(beat.loss) else beat.loss,
        checkpoint_step=on_disk if on_disk is not None else _known(beat.checkpoint_step),
    )


def _known(number: int) -> int | None:
    return number if number >= 0 else None
