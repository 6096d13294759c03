"""Where the interfaces ask: the `Control` protocol on top of the loop."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Final

from trainerd.contract.clock import SystemClock
from trainerd.contract.nearest import nearest_hint
from trainerd.contract.safe_text import safe_line, safe_text
from trainerd.errors import TryAgainError, UserError
from trainerd.supervisor.api.control import DaemonView, TrialView
from trainerd.supervisor.api.views import event_view, job_view, outcome_view
from trainerd.supervisor.machine.job_events import HoldAsked, RestartAsked, ResumeAsked, RetryAsked, StopAsked
from trainerd.supervisor.machine.restarts import refusal_of_restart
from trainerd.supervisor.machine.states import Draining, DrainReason
from trainerd.supervisor.notices.announcer import hooks_of
from trainerd.supervisor.notices.notice_rules import trial_notice
from trainerd.supervisor.notices.outbox import only_once
from trainerd.version import VERSION

HELD: Final = "held until it is resumed"
NO_JOURNAL: Final = "nothing is decided: the journal cannot be written"
TRIAL_LIMIT_S: Final = 7.0
"""How long a test of a hook may take, in seconds: the client waits for it."""
ON_HOLD: Final = "the supervisor starts nothing until `trainerd resume --all`"

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import EventView, JobView, OutcomeView
    from trainerd.supervisor.api.recent_attempts import RecentAttempts
    from trainerd.supervisor.journal.journal import Journal
    from trainerd.supervisor.loop import Loop
    from trainerd.supervisor.machine.job_events import Event
    from trainerd.supervisor.machine.states import Job
    from trainerd.supervisor.notices.outbox import Outbox


class Facade:
    """Answers what the interfaces ask. Implements `Control`.

    Args:
        loop: Holds the jobs.
        journal: Holds their history.
        paths: The state folder.
        jobs_dir: The jobs folder.
        recent: What the newest attempts said and how they ended; observes the loop.
        started_wall_s: When this supervisor began, seconds since the epoch.
        outbox: Delivers notices; None has no hooks.
    """

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        paths: StatePaths,
        jobs_dir: Path,
        *,
        recent: RecentAttempts,
        started_wall_s: float,
        outbox: Outbox | None = None,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._paths = paths
        self._jobs_dir = jobs_dir
        self._started_wall_s = started_wall_s
        self._recent = recent
        self._outbox = outbox
        self._reload_refused_wall_s: float | None = None
        self._reload_refusal = ""

    def note_refused_reload(self, reason: str, wall_s: float) -> None:
        """Keep why the program was not replaced, for the one who asked for it."""
        self._reload_refusal, self._reload_refused_wall_s = reason, wall_s

    def jobs_by_state(self) -> dict[str, int]:
        """Count jobs by the name of their state."""
        return dict(sorted(Counter(job.state.NAME for job in self._loop.ledger.jobs.values()).items()))

    def daemon(self) -> DaemonView:
        return DaemonView(
            version=VERSION,
            pid=os.getpid(),
            state_dir=safe_line(str(self._paths.root)),
            jobs_dir=safe_line(str(self._jobs_dir)),
            started_wall_s=self._started_wall_s,
            is_stopping=self._loop.is_stopping,
            jobs_by_state=self.jobs_by_state(),
            last_event=self._journal.last_sequence(),
            is_on_hold=self._loop.is_on_hold,
            journal_problem=safe_text(self._loop.journal_problem),
            preemption=safe_text(self._loop.preemption),
            reload_refused_wall_s=self._reload_refused_wall_s,
            reload_refusal=safe_text(self._reload_refusal),
        )

    def list_jobs(self) -> tuple[JobView, ...]:
        return tuple(self._view(job) for _, job in sorted(self._loop.ledger.jobs.items()))

    def get_job(self, name: str) -> JobView | None:
        job = self._loop.ledger.jobs.get(name)
        return None if job is None else self._view(job)

    def _view(self, job: Job) -> JobView:
        monitor = self._loop.monitors.get(job.name)
        return job_view(
            job,
            self._paths.run(job.name),
            monitor=monitor,
            heartbeat=monitor.heartbeat if monitor is not None else None,
            past=self._recent.last_heartbeat(job.name, self._spoke_last(job)),
            saved=self._recent.last_saved(job.name),
            last_outcome=self._recent.last_outcome(job.name),
            wait=self._wait(job),
            resume=self._recent.last_resume(job.name),
            memory_step=self._recent.memory_step(job.name),
            standby=self._loop.standbys.word(job.name) if self._loop.standbys is not None else None,
        )

    async def observe(self, name: str | None = None) -> None:
        jobs = self._loop.ledger.jobs
        chosen = jobs if name is None else {name: jobs[name]} if name in jobs else {}
        await self._recent.observe({name: self._spoke_last(job) for name, job in chosen.items()})

    def _wait(self, job: Job) -> str | None:
        if self._loop.journal_problem:
            return NO_JOURNAL
        if job.is_held:
            return HELD
        if self._loop.is_on_hold:
            return ON_HOLD
        return self._loop.kept_back or self._loop.ledger.waits.get(job.name)

    def _spoke_last(self, job: Job) -> int:
        """Return the newest attempt that has said something, 0 if there is none.

        A live one shows it in its monitor.
        """
        return job.attempt - 1 if job.name in self._loop.monitors else job.attempt

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200, is_newest: bool = False
    ) -> tuple[EventView, ...]:
        rows = self._journal.events(job=job, after=after, limit=limit, is_newest=is_newest)
        return tuple(event_view(row) for row in rows)

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        return tuple(outcome_view(row) for row in self._journal.endings(name))

    async def stop(self, name: str, *, now: bool = False) -> JobView:
        job = self._loop.ledger.jobs.get(name)
        state = job.state if job is not None else None
        is_asked = isinstance(state, Draining) and state.why is DrainReason.STOP
        if not (now and is_asked):
            await self._ask(name, StopAsked(), "stop")
        monitor = self._loop.monitors.get(name)
        if now and monitor is not None:
            monitor.hurry()
        view = self.get_job(name)
        assert view is not None, "a decision about a job leaves the job"
        return view

    async def resume(self, name: str) -> JobView:
        return await self._ask(name, ResumeAsked(), "resume")

    async def hold(self, name: str) -> JobView:
        return await self._ask(name, HoldAsked(), "hold")

    async def retry(self, name: str) -> JobView:
        return await self._ask(name, RetryAsked(), "retry")

    def check_restart(self, name: str) -> JobView:
        job = self._loop.ledger.jobs.get(name)
        if job is None:
            raise UserError(f"there is no job {name!r}")
        self._refuse_while_stopping()
        refusal = refusal_of_restart(job)
        if refusal is not None:
            raise UserError(f"cannot restart {name!r}, which is {job.state.NAME}: {refusal}")
        return self._view(job)

    async def restart(self, name: str, *, is_fresh: bool) -> JobView:
        return await self._ask(name, RestartAsked(is_fresh), "restart")

    async def hold_all(self) -> DaemonView:
        self._refuse_while_stopping()
        self._loop.hold_all()
        return self.daemon()

    async def release_all(self) -> DaemonView:
        self._refuse_while_stopping()
        self._loop.release_all()
        return self.daemon()

    async def test_hooks(self, name: str | None) -> tuple[TrialView, ...]:
        if self._outbox is None:
            return ()
        jobs = self._loop.ledger.jobs
        chosen = [hook for hook in self._outbox.hooks if name in {None, hook.name}]
        if name is not None:
            chosen += hooks_of(jobs.get(name))
            chosen += [hook for job in jobs.values() for hook in hooks_of(job) if hook.name == name]
        if name is not None and not chosen:
            known = [hook.name for hook in self._outbox.hooks]
            what = f"job {name!r} has no hooks (notify)" if name in jobs else f"there is no hook {name!r}"
            raise UserError(what, hint=nearest_hint(name, known) or "hooks are in the configuration")
        tried = [only_once(hook, limit_s=TRIAL_LIMIT_S) for hook in chosen]
        trials = await self._outbox.try_hooks(tried, trial_notice(SystemClock().wall_s()))
        return tuple(TrialView(each.hook, each.kind, each.problem) for each in trials)

    async def reload(self) -> None:
        self._refuse_while_stopping()
        # The same way as from outside: one way to reload, and one flag that notes it.
        os.kill(os.getpid(), signal.SIGHUP)

    def _refuse_while_stopping(self) -> None:
        if self._loop.is_stopping:
            raise TryAgainError("the supervisor is stopping", hint="ask again when it is back")

    async def _ask(self, name: str, event: Event, verb: str) -> JobView:
        if name not in self._loop.ledger.jobs:
            raise UserError(f"there is no job {name!r}")
        self._refuse_while_stopping()
        step = await self._loop.inbox.ask(name, event)
        if step.is_ignored or step.after is None:
            state = step.before.state.NAME if step.before is not None else "gone"
            raise UserError(f"cannot {verb} {name!r}, which is {state}: {step.reason}")
        await self.observe(name)
        view = self.get_job(name)
        assert view is not None, "a decision about a job leaves the job"
        return view

    async def rescan(self) -> None:
        try:
            await self._loop.scan()
        except OSError as error:
            raise TryAgainError(f"the jobs folder cannot be read: {error}") from error
