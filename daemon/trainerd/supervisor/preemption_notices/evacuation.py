"""Asks the sources of notices, each in a thread of its own, and drains the jobs when the machine is taken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from trainerd.supervisor.bounded_io import DaemonThreads
from trainerd.supervisor.notices.announcer import hooks_of
from trainerd.supervisor.notices.notice_rules import Notice
from trainerd.supervisor.notices.payloads import moment
from trainerd.supervisor.preemption_notices.taking import NotSeenError
from trainerd.supervisor.preemption_notices.taking_plan import LiveJob, TakingState, decide_taking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainerd.contract.clock import Clock
    from trainerd.supervisor.bounded_io import BoundedIo
    from trainerd.supervisor.loop import Loop
    from trainerd.supervisor.notices.outbox import Outbox
    from trainerd.supervisor.preemption_notices.taking import Taking, TakingSource
    from trainerd.supervisor.preemption_notices.taking_plan import TakingActs

LOOK_LIMIT_S: Final = 5.0
"""How long one look at a source may take before it counts as not made, in seconds."""

FIRST_LOOK_LIMIT_S: Final = 3.0
"""How long the first jobs wait for every source to have been asked once, in seconds."""

ASKING: Final = "it is being asked whether this machine is taken"

TICK_S: Final = 0.25
"""How often it is decided what follows, in seconds."""

_log = structlog.get_logger(__name__)


class Evacuation:
    """Lets jobs leave a machine that is taken.

    Args:
        loop: Holds the jobs.
        sources: Who announces it.
        outbox: Tells people.
        clock: Tells the time.
        io: Reads run folders.
        predict: Returns a call that says how long the drain of a job will probably take; blocks.
        margin_s: How long before the deadline all jobs are to have left.
    """

    def __init__(
        self,
        loop: Loop,
        sources: Sequence[TakingSource],
        outbox: Outbox,
        clock: Clock,
        *,
        io: BoundedIo,
        predict: Callable[[str], Callable[[], float]],
        margin_s: float,
    ) -> None:
        self._loop = loop
        self._sources = tuple(sources)
        self._outbox = outbox
        self._clock = clock
        self._io = io
        self._predict = predict
        self._margin_s = margin_s
        self._threads = DaemonThreads()
        self._seen: dict[str, tuple[Taking, ...]] = {}
        self._state = TakingState()
        self._predicted_s: dict[tuple[str, int], float] = {}
        self._unasked = {source.name for source in self._sources}
        self._first_looks_end_s = 0.0
        self.deadline_wall_s: float | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        if not self._sources:
            return
        self._first_looks_end_s = self._clock.monotonic_s() + FIRST_LOOK_LIMIT_S
        # A supervisor that comes back while the machine is taken must not start what has just left.
        self._loop.kept_back = ASKING
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources:
                tasks.create_task(self._watch(source))
            while True:
                await self._tick()
                await asyncio.sleep(TICK_S)

    async def _watch(self, source: TakingSource) -> None:
        """Ask one source again and again. A look that hangs is waited for, and no other is made meanwhile."""
        loop = asyncio.get_running_loop()
        while True:
            future = loop.run_in_executor(self._threads, source.look)
            done, _ = await asyncio.wait({future}, timeout=LOOK_LIMIT_S)
            if not done:
                self._say_not_seen(source, f"it does not answer within {LOOK_LIMIT_S:g} s")
            try:
                self._seen[source.name] = await future
            except NotSeenError as error:
                self._say_not_seen(source, str(error))
            except Exception as error:  # noqa: BLE001 - a source that fails is no notice, and ends nothing
                self._say_not_seen(source, f"{type(error).__name__} in trainerd: please report it")
            self._unasked.discard(source.name)
            await asyncio.sleep(source.poll_s)

    def _say_not_seen(self, source: TakingSource, reason: str) -> None:
        _log.warning("preemption.not-observed", source=source.name, reason=reason)

    async def _tick(self) -> None:
        seen, self._seen = self._seen, {}
        now_s = self._clock.wall_s()
        self._state, acts = decide_taking(
            self._state, seen, await self._live_jobs(seen), now_wall_s=now_s, margin_s=self._margin_s
        )
        self._follow(acts, now_s)

    async def _live_jobs(self, seen: dict[str, tuple[Taking, ...]]) -> list[LiveJob]:
        """Return the jobs that have processes, if a notice needs them."""
        if not self._state.active and not any(seen.values()):
            return []
        jobs = [job for job in self._loop.ledger.jobs.values() if job.is_live and job.spec is not None]
        unknown = {
            (job.name, job.attempt): self._predict(job.name)
            for job in jobs
            if (job.name, job.attempt) not in self._predicted_s
        }
        if unknown:
            found = await self._io.sweep(unknown)
            for key in unknown:
                job = self._loop.ledger.jobs.get(key[0])
                grace_s = job.spec.grace_s if job is not None and job.spec is not None else 0.0
                self._predicted_s[key] = found.get(key, grace_s)
        return [
            LiveJob(job.name, job.spec.priority, self._predicted_s[job.name, job.attempt])
            for job in jobs
            if job.spec is not None
        ]

    def _follow(self, acts: TakingActs, now_s: float) -> None:
        for notice in acts.new:
            _log.warning(
                "preemption.notice",
                source=notice.source,
                deadline=_iso(notice.deadline_wall_s),
                reason=notice.text(now_s),
            )
            self._tell(notice.text(now_s), notice, now_s)
        for notice in acts.cancelled:
            _log.info("preemption.cancelled", source=notice.source, reason=notice.text(now_s))
            self._tell(f"cancelled: {notice.text(now_s)}", notice, now_s)
        for notice in acts.passed:
            _log.info("preemption.passed", source=notice.source, reason=notice.text(now_s))
            self._tell(f"the machine is still there: {notice.text(now_s)}", notice, now_s)
        self.deadline_wall_s = acts.deadline_wall_s
        if acts.why:
            self._loop.keep_back(acts.why, is_draining=acts.is_draining)
        elif self._loop.kept_back and not self._is_asking():
            self._predicted_s.clear()
            self._loop.let_go()
        self._loop.drain_for(acts.drain, acts.why)
        for name in acts.hurry:
            monitor = self._loop.monitors.get(name)
            if monitor is not None:
                monitor.hurry()

    def _is_asking(self) -> bool:
        return bool(self._unasked) and self._clock.monotonic_s() < self._first_looks_end_s

    def _tell(self, message: str, notice: Taking, now_s: float) -> None:
        details = {"source": notice.source, "deadline": _iso(notice.deadline_wall_s)}
        live = [job for job in self._loop.ledger.jobs.values() if job.is_live]
        more = [hook for job in live for hook in hooks_of(job)]
        self._outbox.offer(Notice("preemption", message, wall_s=now_s, details=details), more)


def _iso(wall_s: float | None) -> str | None:
    return moment(wall_s) if wall_s is not None else None
