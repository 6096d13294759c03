"""From what the loop does to the outbox: which hooks are told of which decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.supervisor.notices.notice_rules import notices_of, suspect_notice

if TYPE_CHECKING:
    from trainerd.contract.clock import Clock
    from trainerd.contract.hooks import Hook
    from trainerd.supervisor.attempt.run_news import RankFinding
    from trainerd.supervisor.log.job_lines import DecidedStep
    from trainerd.supervisor.machine.states import Job
    from trainerd.supervisor.notices.outbox import Outbox


class Announcer:
    """Hands notices to an outbox.

    Args:
        outbox: Takes them.
        clock: Dates them.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    def note(self, step: DecidedStep) -> None:
        """Observe a decision of the loop."""
        for notice in notices_of(step, wall_s=self._clock.wall_s()):
            self._outbox.offer(notice, hooks_of(step.after or step.before))

    def note_finding(self, job: Job, attempt: int, finding: RankFinding) -> None:
        """Observe what a rank has found."""
        if finding.event != "resume.inexact":
            return
        notice = suspect_notice(
            job.name,
            attempt,
            verdict=str(finding.fields.get("verdict", "")),
            reason=str(finding.fields.get("reason", "")),
            checkpoint=finding.fields.get("checkpoint"),
            wall_s=self._clock.wall_s(),
        )
        self._outbox.offer(notice, hooks_of(job))


def hooks_of(job: Job | None) -> tuple[Hook, ...]:
    """Return the hooks of a job alone."""
    return job.spec.notify if job is not None and job.spec is not None else ()
