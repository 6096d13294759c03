"""Every structured event that the supervisor logs: its name, its level, when it is logged, and its fields.

A test compares the calls in the code with this catalogue, and `docs/events.md` is generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from trainerd.supervisor.log.event_fields import FIELDS
from trainerd.supervisor.machine.job_events import EVENTS
from trainerd.supervisor.machine.states import STATES

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True)
class LogEvent:
    """One kind of line.

    Attributes:
        name: What the field ``event`` holds.
        level: What the field ``level`` holds.
        when: When it is logged.
        fields: The other fields that it may have.
        is_bounded: Whether a repetition is held back for a while.
    """

    name: str
    level: Level
    when: str
    fields: tuple[str, ...] = ()
    is_bounded: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.fields) - FIELDS.keys()
        assert not unknown, f"{self.name} has fields without a meaning: {sorted(unknown)}"


_JOB: Final = ("job", "attempt")
_STATE_LEVELS: Final[dict[str, Level]] = dict.fromkeys(("parked", "faulted", "rejected", "paused"), "warning")
_NOTED_LEVELS: Final[dict[str, Level]] = {
    "progress-seen": "debug",
    "drain-signalled": "debug",
    "wait-ended": "debug",
    "spec-refused": "warning",
}


def spoken(event: type) -> str:
    """Return the name of a kind of event as log lines have it: ``SpecRefused`` is ``spec-refused``."""
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in event.__name__)
    return words.lstrip("-")


def _of_jobs() -> list[LogEvent]:
    fields = (*_JOB, "step", "reason")
    entered = [
        LogEvent(
            f"job.{state.NAME}",
            _STATE_LEVELS.get(state.NAME, "info"),
            f"A job enters the state *{state.NAME}*.",
            fields,
            is_bounded=state.NAME == "paused",
        )
        for state in STATES
    ]
    noted = [
        LogEvent(
            f"job.noted.{spoken(event)}",
            _NOTED_LEVELS.get(spoken(event), "info"),
            f"`{event.__name__}` is noted and the state stays.",
            fields,
            is_bounded=spoken(event) == "observation-failed",
        )
        for event in EVENTS
    ]
    return [
        *entered,
        *noted,
        LogEvent("job.forgotten", "info", "The spec was removed, and the job with it.", fields),
    ]


_OTHERS: Final = (
    # --- the supervisor's own life ---
    LogEvent("supervisor.started", "info", "It begins.", ("version", "pid", "state")),
    LogEvent(
        "supervisor.ready", "info", "Specs are watched and requests are answered.", ("socket", "jobs_folder")
    ),
    LogEvent(
        "supervisor.failed", "error", "It cannot start or go on, and exits.", ("reason", "hint", "exception")
    ),
    LogEvent("supervisor.message", "warning", "Python or a library has printed this.", ("message",)),
    LogEvent(
        "supervisor.reloading", "info", "The next program takes its place in the same process.", ("pid",)
    ),
    LogEvent(
        "supervisor.reload-refused", "error", "The next program or its settings are not sound.", ("reason",)
    ),
    LogEvent(
        "supervisor.reload-failed",
        "error",
        "A reload that was asked for was not carried out.",
        ("reason", "hint"),
    ),
    LogEvent("supervisor.stopped", "info", "It leaves.", ("pid",)),
    LogEvent(
        "supervisor.on-hold", "info", "All jobs are drained and none is started until they are resumed."
    ),
    LogEvent("supervisor.released", "info", "Jobs are started again."),
    LogEvent(
        "supervisor.draining",
        "info",
        "It was asked to leave, and all jobs to checkpoint.",
        ("jobs", "limit_s", "predicted_s", "hurry_s"),
    ),
    LogEvent(
        "supervisor.drain-too-short",
        "warning",
        "These jobs will probably not make it.",
        ("jobs_at_risk", "limit_s"),
    ),
    LogEvent("supervisor.hurried", "warning", "It was asked to leave once more.", ("requests",)),
    LogEvent(
        "supervisor.hurries", "warning", "Time runs out: the ranks are told to save now.", ("left", "limit_s")
    ),
    LogEvent("supervisor.kills", "error", "Time is over: the ranks are killed.", ("left", "limit_s")),
    LogEvent("supervisor.leaves-attempts", "error", "It leaves while these jobs run.", ("left", "limit_s")),
    LogEvent(
        "supervisor.cgroups", "info", "Attempts get cgroups of their own.", ("place", "memory", "swept")
    ),
    LogEvent("supervisor.no-cgroups", "info", "Attempts get no cgroups.", ("reason",)),
    LogEvent(
        "supervisor.no-shim-template",
        "warning",
        "Shims are started singly, which is slower.",
        ("reason",),
        is_bounded=True,
    ),
    LogEvent(
        "supervisor.jobs-folder-not-locked",
        "warning",
        "Another supervisor on the jobs folder would not be noticed.",
        ("folder", "reason"),
    ),
    LogEvent(
        "supervisor.filesystem-hangs",
        "warning",
        "A folder does not answer.",
        ("what", "hung"),
        is_bounded=True,
    ),
    LogEvent("supervisor.filesystem-answers", "info", "It answers again.", ("what", "hung"), is_bounded=True),
    LogEvent("web.failed", "error", "The page is not served; all else goes on.", ("reason",)),
    LogEvent(
        "api.peer-unknown",
        "warning",
        "Who asks cannot be found out, so the request is refused.",
        ("reason",),
        is_bounded=True,
    ),
    # --- what is kept on the disk ---
    LogEvent(
        "journal.full",
        "error",
        "The disk is full or read-only: nothing can be decided.",
        ("reason",),
        is_bounded=True,
    ),
    LogEvent(
        "journal.unusable",
        "error",
        "The journal cannot be written: nothing can be decided.",
        ("reason",),
        is_bounded=True,
    ),
    LogEvent("journal.written-again", "info", "It can be written again.", (), is_bounded=True),
    LogEvent("journal.row-damaged", "error", "A row cannot be read and is set aside.", (*_JOB, "reason")),
    LogEvent(
        "jobs-folder.unreadable",
        "error",
        "The specs cannot be read; the known jobs go on.",
        ("reason", "exception"),
        is_bounded=True,
    ),
    LogEvent(
        "jobs-folder.polled",
        "warning",
        "The folder cannot be watched; it is read now and then.",
        ("folder", "reason", "every_s"),
    ),
    LogEvent("jobs-folder.watched", "info", "It can be watched again.", ("folder",)),
    # --- attempts ---
    LogEvent(
        "attempt.ended",
        "info",
        "An attempt has finished, was drained or left when asked.",
        (*_JOB, "outcome", "exit", "signal", "step", "checkpoint", "lost_steps", "retry_in_s", "reason"),
    ),
    LogEvent(
        "attempt.failed",
        "warning",
        "An attempt ended badly.",
        (*_JOB, "outcome", "exit", "signal", "step", "checkpoint", "lost_steps", "retry_in_s", "reason"),
    ),
    LogEvent(
        "attempt.not-launched",
        "warning",
        "No process of it exists.",
        (*_JOB, "retry_in_s", "reason"),
        is_bounded=True,
    ),
    LogEvent(
        "attempt.shim-continued",
        "warning",
        "The shim was stopped, and is continued for a request.",
        ("pid", "folder"),
    ),
    LogEvent(
        "standby.not-kept",
        "warning",
        "The processes that are ready for next attempts could not be looked after; the jobs go on.",
        ("reason",),
    ),
    LogEvent(
        "attempt.not-signalled",
        "warning",
        "A signal could not be sent; it is tried again.",
        (*_JOB, "reason"),
        is_bounded=True,
    ),
    LogEvent(
        "attempt.stall-not-recorded", "warning", "Why it is ended could not be written.", (*_JOB, "reason")
    ),
    LogEvent(
        "attempt.script-not-observed", "warning", "Its last state could not be read.", (*_JOB, "reason")
    ),
    # --- what ranks find ---
    LogEvent(
        "checkpoint.quarantined",
        "warning",
        "A damaged checkpoint was moved to quarantine.",
        (*_JOB, "checkpoint", "reason"),
    ),
    LogEvent(
        "resume.fallback",
        "warning",
        "A resume took an older checkpoint than the newest.",
        (*_JOB, "checkpoint", "step", "reason"),
    ),
    LogEvent(
        "resume.lost-steps",
        "warning",
        "Steps beyond the checkpoint are run again.",
        (*_JOB, "lost_steps", "checkpoint", "step"),
    ),
    LogEvent(
        "resume.verdict",
        "info",
        "What is known of a resume: *exact* or *unchecked*.",
        (*_JOB, "verdict", "checkpoint", "step", "lost_steps", "reason"),
    ),
    LogEvent(
        "resume.inexact",
        "warning",
        "What is known of a resume: *suspect* or *different*.",
        (*_JOB, "verdict", "checkpoint", "step", "lost_steps", "reason"),
    ),
    # --- jobs ---
    LogEvent(
        "job.adopting", "info", "An attempt that an earlier supervisor launched is watched.", (*_JOB, "state")
    ),
    LogEvent("job.ignored", "debug", "Something that changes nothing.", (*_JOB, "event_kind", "reason")),
    LogEvent(
        "job.handling-failed",
        "error",
        "A fault of trainerd: the job is set aside.",
        (*_JOB, "reason", "traceback"),
    ),
    LogEvent(
        "job.set-aside", "error", "Earlier supervisors ended while they handled this job.", ("job", "reason")
    ),
    # --- notices ---
    LogEvent("notice.delivered", "debug", "A hook has told of something.", ("job", "hook", "notice")),
    LogEvent(
        "notice.not-delivered",
        "warning",
        "A hook has failed, and is not tried again.",
        ("job", "hook", "notice", "tries", "reason"),
        is_bounded=True,
    ),
    LogEvent(
        "notice.dropped",
        "warning",
        "A notice is not delivered: too many wait, or the supervisor leaves.",
        ("job", "hook", "notice", "reason"),
        is_bounded=True,
    ),
    LogEvent(
        "preemption.notice", "warning", "The machine is about to be taken.", ("source", "deadline", "reason")
    ),
    LogEvent("preemption.cancelled", "info", "Such a notice was taken back.", ("source", "reason")),
    LogEvent(
        "preemption.passed", "info", "The time is over and the machine still there.", ("source", "reason")
    ),
    LogEvent(
        "preemption.not-observed",
        "warning",
        "A source of such notices cannot be asked: nothing is known.",
        ("source", "reason"),
        is_bounded=True,
    ),
    LogEvent("disk.low", "warning", "The disk of the state folder runs low.", ("folder", "reason")),
    # --- `trainerd exec` ---
    LogEvent("foreground.started", "info", "It begins.", ("pid", "state", "job")),
    LogEvent("foreground.time-up", "info", "The time of --leave-every is over; it leaves.", ("limit_s",)),
    LogEvent("foreground.draining", "info", "It was asked to leave.", ("limit_s",)),
    LogEvent("foreground.leaves-attempt", "error", "It leaves while its attempt runs.", ("limit_s",)),
    LogEvent(
        "foreground.taken-over",
        "error",
        "Another process, on another machine, has taken its state folder over: it leaves.",
        ("state",),
    ),
    LogEvent("foreground.no-socket", "warning", "It answers no requests.", ("reason",)),
    LogEvent("foreground.run-not-observed", "warning", "The run folder does not answer.", ("reason",)),
    # --- the log itself ---
    LogEvent("log.lost", "warning", "So many lines before this one were not taken.", ("lines",)),
    LogEvent(
        "library.log",
        "warning",
        "A library says this, from its level *warning* up.",
        ("logger", "message", "exception"),
    ),
)

CATALOGUE: Final[dict[str, LogEvent]] = {event.name: event for event in (*_OTHERS, *_of_jobs())}
"""All of them, by name."""
