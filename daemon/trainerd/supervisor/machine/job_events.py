"""What can happen to a job. Facts and requests alike; the machine answers each in every state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.machine.outcome import Outcome
from trainerd.supervisor.machine.states import FileMark


@dataclass(frozen=True)
class SpecAccepted:
    """The spec can be read and is sound.

    Attributes:
        spec: What it says.
        newest_attempt: Number of the newest attempt in the run folder; counts for a job never accepted yet.
        is_live: Whether that attempt may still have processes; likewise.
    """

    spec: ResolvedJob
    newest_attempt: int = 0
    is_live: bool = False


@dataclass(frozen=True)
class SpecRefused:
    """There is a spec and it cannot be accepted."""

    error: str


@dataclass(frozen=True)
class SpecVanished:
    """The jobs folder could be read and the spec is no longer in it."""


@dataclass(frozen=True)
class SlotGranted:
    """There is room for the job, and it is its turn."""

    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class NeverFits:
    """The machine is too small for what the job asks for."""

    why: str


@dataclass(frozen=True)
class LaunchFailed:
    """The attempt could not be launched, and no process of it exists."""

    attempt: int
    error: str
    is_for_want_of_space: bool = False


@dataclass(frozen=True)
class AttemptVoided:
    """The attempt was never launched, and is sealed so that it never can be."""

    attempt: int


@dataclass(frozen=True)
class AttemptSeen:
    """The attempt's ranks have been seen alive."""

    attempt: int


@dataclass(frozen=True)
class DrainSignalled:
    """The request to stop has reached the attempt's shim."""

    attempt: int


@dataclass(frozen=True)
class ProgressSeen:
    """The attempt has gone beyond the best step reached before it."""

    attempt: int
    step: int


@dataclass(frozen=True)
class StallSeen:
    """The attempt lives and has not moved for longer than its limit."""

    attempt: int
    reason: str


@dataclass(frozen=True)
class AttemptEnded:
    """No process of the attempt is left on this machine, and this is how it ended.

    Attributes:
        attempt: Number of the attempt.
        outcome: The judgement.
        script: The files its command names, as they are now.
    """

    attempt: int
    outcome: Outcome
    script: tuple[FileMark, ...] = ()


@dataclass(frozen=True)
class ObservationFailed:
    """The attempt could not be looked at. This says nothing about it."""

    attempt: int
    error: str


@dataclass(frozen=True)
class StopAsked:
    """A person wants the job drained and kept stopped."""


@dataclass(frozen=True)
class ResumeAsked:
    """A person wants the job to go on now."""


@dataclass(frozen=True)
class HoldAsked:
    """A person wants nothing of the job launched until it is resumed."""


@dataclass(frozen=True)
class RetryAsked:
    """A person wants a job that was given up, or that waits, to be tried again with a full budget."""


@dataclass(frozen=True)
class RestartAsked:
    """A person wants a job that is at rest, also a complete one, to be started again.

    Attributes:
        is_fresh: Whether its run was moved aside, so that a new one begins.
    """

    is_fresh: bool = False


@dataclass(frozen=True)
class ShutdownAsked:
    """The supervisor drains everything, to leave or to start nothing for a while.

    Attributes:
        is_leaving: Whether it leaves; else it was told to start nothing until it is resumed.
        why: Why it starts nothing, if not because a person has told it so.
    """

    is_leaving: bool = True
    why: str = ""


@dataclass(frozen=True)
class PreemptionAsked:
    """A job of higher priority needs the slot."""

    by: str


@dataclass(frozen=True)
class WaitEnded:
    """The wait that followed this attempt is over."""

    attempt: int


@dataclass(frozen=True)
class SpaceBack:
    """There is room on the disk again."""


@dataclass(frozen=True)
class ScriptChanged:
    """A file that the command names has changed."""


@dataclass(frozen=True)
class FaultSeen:
    """Handling the job failed by a fault of trainerd's own.

    Attributes:
        error: What happened, in one sentence.
        detail: The traceback, a line each.
    """

    error: str
    detail: tuple[str, ...] = ()


Event = (
    SpecAccepted
    | SpecRefused
    | SpecVanished
    | SlotGranted
    | NeverFits
    | LaunchFailed
    | AttemptVoided
    | AttemptSeen
    | DrainSignalled
    | ProgressSeen
    | StallSeen
    | AttemptEnded
    | ObservationFailed
    | StopAsked
    | ResumeAsked
    | HoldAsked
    | RetryAsked
    | RestartAsked
    | ShutdownAsked
    | PreemptionAsked
    | WaitEnded
    | SpaceBack
    | ScriptChanged
    | FaultSeen
)

EVENTS: Final[tuple[type[Event], ...]] = Event.__args__
