"""The end of a supervisor: every job is drained by a plan, systemd is notified, a second request hurries."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from trainerd.contract.clock import SystemClock
from trainerd.supervisor.service.drain_plan import (
    DrainWatch,
    Extend,
    Hurry,
    KillAll,
    Prospect,
    drain_plan,
    time_given_s,
    watch,
)
from trainerd.supervisor.service.past_drains import past_drains_s

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.bounded_io import BoundedIo
    from trainerd.supervisor.loop import Loop
    from trainerd.supervisor.service.configuration import StopSection
    from trainerd.supervisor.service.drain_plan import DrainPlan
    from trainerd.supervisor.service.sd_notify import Notifier

LOOK_S: Final = 0.5
"""How often those who are left are looked at."""

_log = structlog.get_logger(__name__)


class Leaving:
    """Drains all jobs of a loop.

    Args:
        loop: Holds the jobs.
        paths: The state folder.
        notifier: The way to systemd.
        settings: How much time there is.
        io: Makes the calls that block.
        taken_wall_s: Returns when the machine is taken, in seconds since the epoch; None is not known.
    """

    def __init__(
        self,
        loop: Loop,
        paths: StatePaths,
        notifier: Notifier,
        settings: StopSection,
        io: BoundedIo,
        *,
        taken_wall_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._paths = paths
        self._notifier = notifier
        self._settings = settings
        self._io = io
        self._taken_wall_s = taken_wall_s
        self._requests = 1

    async def drain(self) -> None:
        """Ask every job to stop, and return when none is left or the time is over."""
        self._notifier.stopping()
        clock = asyncio.get_running_loop()
        began_s = clock.time()
        drained = asyncio.create_task(self._loop.drain_all())
        plan = await self._plan()
        state = DrainWatch(plan)
        while not drained.done() and clock.time() - began_s < plan.limit_s:
            state, acts = watch(state, self._seen(), clock.time() - began_s)
            for act in acts:
                match act:
                    case Extend(by_s):
                        self._notifier.extend(by_s)
                    case Hurry():
                        _log.warning("supervisor.hurries", limit_s=plan.limit_s, left=self._left())
                        self._hurry_all()
                    case KillAll():
                        _log.error("supervisor.kills", limit_s=plan.limit_s, left=self._left())
                        self._kill_all()
            self._say_status(plan, clock.time() - began_s)
            await asyncio.wait([drained], timeout=LOOK_S)
        if not drained.done():
            drained.cancel()
            # Their shims go on without us, and the next supervisor collects what they record.
            _log.error("supervisor.leaves-attempts", left=self._left(), limit_s=plan.limit_s)
        elif not drained.cancelled():
            drained.result()

    def hurry(self) -> None:
        """Pass on that it is urgent: the ranks are told "now" and killed soon after.

        A third request kills at once.
        """
        self._requests += 1
        _log.warning("supervisor.hurried", requests=self._requests)
        if self._requests == 2:
            self._hurry_all()
            asyncio.get_running_loop().call_later(self._settings.hurry, self._kill_all)
        else:
            self._kill_all()

    async def _plan(self) -> DrainPlan:
        live = [job for job in self._loop.ledger.jobs.values() if job.is_live and job.spec is not None]
        runs = {job.name: self._paths.run(job.name) for job in live}
        earlier = await self._io.sweep(
            {runs[job.name].root: partial(past_drains_s, runs[job.name], job.attempt) for job in live}
        )
        # Where a run folder does not answer, nothing is known.
        prospects = [
            Prospect(job.name, job.spec.grace_s, earlier.get(runs[job.name].root, ()))
            for job in live
            if job.spec is not None
        ]
        now_wall_s = SystemClock().wall_s()
        given_s = time_given_s(
            self._settings.limit, os.environ, now_wall_s, taken_wall_s=self._taken_wall_s()
        )
        plan = drain_plan(prospects, given_s=given_s, margin_s=self._settings.margin)
        _log.info(
            "supervisor.draining",
            jobs=len(live),
            limit_s=plan.limit_s,
            predicted_s=round(plan.predicted_s, 3),
            hurry_s=plan.hurry_s,
        )
        if plan.too_short_for:
            _log.warning("supervisor.drain-too-short", jobs_at_risk=plan.too_short_for, limit_s=plan.limit_s)
        return plan

    def _left(self) -> list[str]:
        return sorted(job.name for job in self._loop.ledger.jobs.values() if job.is_live)

    def _seen(self) -> Hashable:
        """Return a value that changes as long as a job moves."""
        beats = {name: monitor.heartbeat for name, monitor in self._loop.monitors.items()}
        return tuple(
            (name, (beat.phase, beat.beats, beat.step) if (beat := beats.get(name)) is not None else None)
            for name in self._left()
        )

    def _say_status(self, plan: DrainPlan, now_s: float) -> None:
        left_s = max(plan.predicted_s - now_s, 0.0)
        expected = f"expected within {left_s:.0f} s" if left_s else "later than expected"
        self._notifier.status(f"draining, {len(self._left())} left, {expected}")

    def _hurry_all(self) -> None:
        for monitor in self._loop.monitors.values():
            monitor.hurry()

    def _kill_all(self) -> None:
        for monitor in self._loop.monitors.values():
            monitor.kill()
