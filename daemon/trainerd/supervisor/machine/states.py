"""What a job can be. Each state carries its own data; what outlives a state is in `Job`.

A job holds its slot in exactly the states that are `LIVE`: those in which an attempt may have processes.
Nothing else keeps a ledger of slots, so none can be lost.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from trainerd.contract.policy import Resources
from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.machine.repeats import Repeat


class DrainReason(enum.Enum):
    """Why an attempt was asked to stop, which decides what happens when it has."""

    STOP = "stop"
    REMOVED = "removed"
    CHANGED = "changed"
    RESUMED = "resumed"
    SHUTDOWN = "shutdown"
    PREEMPTED = "preempted"
    HELD = "held"


NO_STEP: Final = -1
"""Best step of a run that has not begun."""


@dataclass(frozen=True)
class Queued:
    """Waits for a slot."""

    NAME: ClassVar[str] = "queued"


@dataclass(frozen=True)
class Starting:
    """Has a slot, and its newest attempt is being launched: no rank has been seen yet.

    Attributes:
        gpus: Indices of the GPUs it was given.
    """

    NAME: ClassVar[str] = "starting"

    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Running:
    """Its newest attempt runs.

    Attributes:
        gpus: Indices of the GPUs it was given.
        has_progressed: Whether this attempt has gone beyond the best step reached before it.
        is_stalled: Whether it stands still and is being ended for that.
    """

    NAME: ClassVar[str] = "running"

    gpus: tuple[int, ...] = ()
    has_progressed: bool = False
    is_stalled: bool = False


@dataclass(frozen=True)
class Draining:
    """Its newest attempt was asked to stop and has not ended yet.

    Attributes:
        why: What happens next follows from this.
        gpus: Indices of the GPUs it was given.
        has_progressed: Whether this attempt has gone beyond the best step reached before it.
        is_signalled: Whether the signal is known to be on its way: a second one would say "now".
    """

    NAME: ClassVar[str] = "draining"

    why: DrainReason = DrainReason.STOP
    gpus: tuple[int, ...] = ()
    has_progressed: bool = False
    is_signalled: bool = False


@dataclass(frozen=True)
class BackingOff:
    """Waits before the next attempt.

    Attributes:
        delay_s: How long, in seconds.
        until_wall_s: Until when, seconds since the epoch.
    """

    NAME: ClassVar[str] = "backing-off"

    delay_s: float
    until_wall_s: float


@dataclass(frozen=True)
class Paused:
    """Waits for room on the disk, and at least for `delay_s`, so that a wrong guess makes no storm.

    Attributes:
        delay_s: Shortest wait, in seconds.
        until_wall_s: When that has passed, seconds since the epoch.
        has_waited: Whether it has.
    """

    NAME: ClassVar[str] = "paused"

    delay_s: float
    until_wall_s: float
    has_waited: bool = False


@dataclass(frozen=True)
class Stopped:
    """Was stopped, and stays so until it is resumed."""

    NAME: ClassVar[str] = "stopped"


@dataclass(frozen=True)
class Finished:
    """Is complete under the spec with this digest; another spec makes it go on."""

    NAME: ClassVar[str] = "finished"

    spec_digest: str


@dataclass(frozen=True)
class Parked:
    """Has spent its restart budget, or would end the same way. A changed spec or `resume` renews it."""

    NAME: ClassVar[str] = "parked"


@dataclass(frozen=True)
class FileMark:
    """What a file looked like: enough to see that it changed."""

    path: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Rejected:
    """Cannot run as it is; trying again unchanged would not help.

    Attributes:
        by: What was refused: the spec, its demand for resources, or the program itself when it ran.
        script: The files that its command named when it ran: a change makes it try again.
    """

    NAME: ClassVar[str] = "rejected"

    by: Literal["spec", "resources", "program"]
    script: tuple[FileMark, ...] = ()


@dataclass(frozen=True)
class Faulted:
    """Was set aside because trainerd itself failed in handling it; resuming it has it tried again.

    Attributes:
        detail: The traceback, a line each.
        may_live: Whether its newest attempt may have processes; then it keeps its slot, and is not watched.
        devices: Indices of the GPUs which that attempt was given.
    """

    NAME: ClassVar[str] = "faulted"

    detail: tuple[str, ...] = ()
    may_live: bool = False
    devices: tuple[int, ...] = ()


State = (
    Queued
    | Starting
    | Running
    | Draining
    | BackingOff
    | Paused
    | Stopped
    | Finished
    | Parked
    | Rejected
    | Faulted
)

STATES: Final[tuple[type[State], ...]] = (
    Queued,
    Starting,
    Running,
    Draining,
    BackingOff,
    Paused,
    Stopped,
    Finished,
    Parked,
    Rejected,
    Faulted,
)

LIVE: Final = (Starting, Running, Draining)
"""States in which an attempt may have processes, and a slot is held."""


@dataclass(frozen=True)
class Job:
    """A job with all that the supervisor must remember of it.

    Attributes:
        name: The job.
        state: What it is.
        reason: Why it is that: one sentence.
        since_wall_s: Since when, seconds since the epoch.
        spec: The newest spec that was accepted, None if none ever was.
        refusal: Why the file that is there now was refused, None if it was accepted.
        attempt: Number of the newest attempt, 0 before the first.
        attempt_digest: Digest of the spec under which that attempt was launched.
        held: What that attempt occupies while it may have processes.
        best_step: Best step ever reached, `NO_STEP` before the first.
        failures: Attempts in a row without progress.
        is_held: Whether a person keeps it from being launched until it is resumed, whatever its state.
        stalls: Stalled attempts in a row that went no further than the one before.
        repeat: The newest failure, and how often it came in a row; None since it last made progress.
        goes_back_to: Checkpoint from which the next attempt is to go on, leaving newer ones behind; None for
            the newest. Cleared when that attempt has ended.
    """

    name: str
    state: State
    reason: str
    since_wall_s: float
    spec: ResolvedJob | None = None
    refusal: str | None = None
    attempt: int = 0
    attempt_digest: str = ""
    held: Resources = field(default_factory=Resources)
    best_step: int = NO_STEP
    failures: int = 0
    is_held: bool = False
    stalls: int = 0
    repeat: Repeat | None = None
    goes_back_to: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether an attempt may have processes."""
        return isinstance(self.state, LIVE)

    @property
    def may_have_processes(self) -> bool:
        """Whether an attempt may have processes, watched or not."""
        return self.is_live or (isinstance(self.state, Faulted) and self.state.may_live)
