"""What the templates are given: views and readings, put into words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.api.web.page_text import spark_points

if TYPE_CHECKING:
    from trainerd.supervisor.api.control import JobView
    from trainerd.supervisor.api.run_readings import RunSummary
    from trainerd.supervisor.goodput.goodput_buckets import Goodput

SPARK_WIDTH: Final = 120
SPARK_HEIGHT: Final = 28
BAR_WIDTH: Final = 1000

_MOODS: Final = {
    "running": "good",
    "finished": "good",
    "starting": "good",
    "draining": "warn",
    "backing-off": "warn",
    "paused": "warn",
    "parked": "bad",
    "rejected": "bad",
    "faulted": "bad",
}


@dataclass(frozen=True)
class Stretch:
    """One bucket of the goodput bar, in thousandths of its width."""

    bucket: str
    seconds: float
    share: float
    x: float
    width: float


@dataclass(frozen=True)
class JobCard:
    """A job as the page shows it.

    Attributes:
        view: What the API says of it.
        run: What was read of its run, None if nothing was yet.
        mood: Colour of its state: good, warn, bad or calm.
        share: How much of it is done, from 0 to 1; None if that is not known.
        eta_s: In how many seconds it will be done at its pace; None if that is not known.
        spark: Points of its loss curve.
        goodput: Where its time went.
        stretches: The same as a bar.
    """

    view: JobView
    run: RunSummary | None
    mood: str
    share: float | None
    eta_s: float | None
    spark: str
    goodput: Goodput | None
    stretches: tuple[Stretch, ...]


def job_card(view: JobView, run: RunSummary | None, now_wall_s: float) -> JobCard:
    """Return a job as the page shows it.

    Args:
        view: What the API says of it.
        run: What was read of its run.
        now_wall_s: Seconds since the epoch.
    """
    goodput = run.facts.goodput(now_wall_s) if run is not None else None
    goodput = goodput if goodput is not None and goodput.wall_s > 0 else None
    step_s = goodput.step_s if goodput is not None else None
    return JobCard(
        view=view,
        run=run,
        mood=_MOODS.get(view.state, "calm"),
        share=view.share_done,
        eta_s=left_s(view, step_s),
        spark=spark_points(run.loss, SPARK_WIDTH, SPARK_HEIGHT) if run is not None else "",
        goodput=goodput,
        stretches=_stretches(goodput) if goodput is not None else (),
    )


def left_s(view: JobView, step_s: float | None) -> float | None:
    """Return how long the steps that are left take at the pace of the newest attempt, in seconds.

    How many are left follows from the share that is done: a step may be of several batches.
    """
    share = view.share_done
    if view.state != "running" or step_s is None or not share or view.step is None:
        return None
    return view.step * (1 - share) / share * step_s


def _stretches(goodput: Goodput) -> tuple[Stretch, ...]:
    found, x = [], 0.0
    for bucket, seconds in goodput.buckets.items():
        share = seconds / goodput.wall_s
        if seconds > 0:
            found.append(Stretch(bucket, seconds, share, round(x, 2), round(share * BAR_WIDTH, 2)))
        x += share * BAR_WIDTH
    return tuple(found)
