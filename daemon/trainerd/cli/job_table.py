"""Jobs as rows of a table, and as lines for a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.cli.fitting_table import ALWAYS, Column
from trainerd.cli.human import NOTHING, duration, epochs_done, number
from trainerd.cli.output import STATE_STYLES
from trainerd.cli.progress import bar
from trainerd.cli.shown_zone import moment
from trainerd.contract.safe_text import safe_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.text import Text

    from trainerd.cli.progress import Pace
    from trainerd.supervisor.api.control import JobView

COLUMNS: Final = (
    Column("NAME", ALWAYS),
    Column("STATE", ALWAYS),
    Column("EPOCH", 60, is_number=True),
    Column("STEP", 70, is_number=True),
    Column("LOSS", 30, is_number=True),
    Column("CHECKPOINT", 40, is_number=True),
    Column("ATTEMPT", 20, is_number=True),
    Column("SINCE", 50, is_number=True),
    Column("REASON", 80, is_flexible=True),
)

WATCH_COLUMNS: Final = (
    Column("NAME", ALWAYS),
    Column("STATE", ALWAYS),
    Column("PROGRESS", 35),
    Column("DONE", 75, is_number=True),
    Column("LEFT", 70, is_number=True),
    Column("STEP", 60, is_number=True),
    Column("LOSS", 40, is_number=True),
    Column("SINCE", 50, is_number=True),
    Column("REASON", 80, is_flexible=True),
)

NO_SESSION_SHOWN_S: Final = 600.0
"""For how long it is said that an attempt has opened no session; then it is a program that opens none."""


def job_rows(jobs: Sequence[JobView], now_s: float) -> list[list[str | Text]]:
    """Return a row of `COLUMNS` for each job."""
    return [
        [
            job.name,
            _styled(job.state),
            epochs_done(job.epoch, job.epochs, job.batch, job.batches),
            number(job.step),
            number(job.loss),
            number(job.checkpoint_step),
            str(job.attempt) if job.attempt else NOTHING,
            duration(now_s - job.since_wall_s),
            reason_now(job, now_s),
        ]
        for job in jobs
    ]


def watch_rows(
    jobs: Sequence[JobView], paces: Mapping[str, Pace], now_s: float, *, is_plain: bool = False
) -> list[list[str | Text]]:
    """Return a row of `WATCH_COLUMNS` for each job, with how far it is and how long it will take."""
    from rich.text import Text

    rows: list[list[str | Text]] = []
    for job in jobs:
        share = job.share_done
        left_s = paces[job.name].left_s() if job.name in paces else None
        style = STATE_STYLES.get(job.state, "")
        rows.append(
            [
                job.name,
                _styled(job.state),
                Text(bar(share, is_plain=is_plain) if share is not None else NOTHING, style=style),
                f"{share:.0%}" if share is not None else NOTHING,
                duration(left_s) if left_s is not None else NOTHING,
                number(job.step),
                number(job.loss),
                duration(now_s - job.since_wall_s),
                reason_now(job, now_s),
            ]
        )
    return rows


def reason_now(job: JobView, now_s: float) -> str:
    """Return why a job is in its state, and while it waits or starts, for how long."""
    if job.retry_at_wall_s is not None and job.state == "backing-off":
        return f"next attempt in {duration(job.retry_at_wall_s - now_s)}: {job.reason}"
    waited_s = now_s - job.since_wall_s
    if job.phase == "importing":
        return f"importing for {duration(waited_s)}: {job.reason}"
    if job.phase == "no-session" and job.state == "running" and waited_s < NO_SESSION_SHOWN_S:
        return f"{job.reason}; no session yet, after {duration(waited_s)}"
    return job.reason


def event_line(job: JobView, now_s: float) -> str:
    """Return what a job is now as a line of a log."""
    parts = [f"step {job.step}"] if job.step is not None else []
    parts += [f"checkpoint {job.checkpoint_step}"] if job.checkpoint_step is not None else []
    shown = f" ({', '.join(parts)})" if parts else ""
    return f"{moment(now_s)}  {job.name}: {job.state}{shown}: {safe_line(reason_now(job, now_s))}"


def _styled(state: str) -> Text:
    from rich.text import Text

    return Text(safe_line(state), style=STATE_STYLES.get(state, ""))
