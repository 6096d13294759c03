"""The records of one attempt, each written by one party and read by the others.

=================  ==========  ==============================================================
file               written by  says
=================  ==========  ==============================================================
``launch.json``    supervisor  what to start; durable before the shim is
``void.json``      supervisor  this attempt must never start; written under the shim's lock
``shim.json``      shim        who it is; durable before any rank is started
``ranks.json``     shim        who the ranks are
``session-P.json`` process P   that it trains, for rank N (see `session_record`)
``stall.json``     supervisor  it stands still and is about to be ended; durable before that is done
``exit.json``      shim        how they ended; durable before the shim leaves
``outcome-N.json`` rank N      why it leaves, in its own words
``finished.json``  rank 0      the run is complete (in the run folder)
``nodes/K.json``   node K      it is not to be waited for any more, and why (in the common folder)
=================  ==========  ==============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.node_place import Place
from trainerd.contract.process import ProcessIdentity
from trainerd.contract.regular_file import NotRegularError
from trainerd.contract.safe_text import safe_value
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path


RANK_LOG_BYTES_MAX: Final = 64 << 20
"""Size at which the log of a rank is moved aside, unless something else is set."""

RANK_LOG_COPIES: Final = 3
"""How many of them are kept, unless something else is set."""


@dataclass(frozen=True)
class LaunchRecord:
    """What the shim is to start.

    Attributes:
        job: Name of the job.
        attempt: Number of the attempt, from 1.
        command: Program and arguments, ready for exec.
        workdir: Absolute folder.
        env: The whole environment of the ranks, except RANK and its like, and except `env_file`.
        env_file: Read by the shim into the environment of the ranks; never copied.
        memory_bytes: What the attempt may hold at most, where a cgroup can see to it; None is no limit.
        uses_cgroup: Whether it gets a cgroup of its own, where one is to be had.
        nproc: Ranks to start.
        is_group: Whether the ranks are told who they are and where they meet, as torchrun tells them.
        grace_s: From the first request to stop until SIGKILL, in seconds.
        log_paths: One log file a rank, appended to.
        log_bytes_max: Size at which such a file is moved aside.
        log_copies: How many of those moved aside are kept for each rank.
        place: Which node this is and where the ranks of all nodes meet; None if the job has one node.
    """

    job: str
    attempt: int
    command: tuple[str, ...]
    workdir: str
    env: dict[str, str]
    nproc: int
    grace_s: float
    log_paths: tuple[str, ...]
    env_file: str | None = None
    memory_bytes: int | None = None
    uses_cgroup: bool = True
    is_group: bool = True
    log_bytes_max: int = RANK_LOG_BYTES_MAX
    log_copies: int = RANK_LOG_COPIES
    place: Place | None = None

    @property
    def first_rank(self) -> int:
        """Number of the first rank that is started here, over all nodes."""
        return self.place.node * self.nproc if self.place is not None else 0


@dataclass(frozen=True)
class VoidRecord:
    """This attempt must never start, and why."""

    reason: str


@dataclass(frozen=True)
class ShimRecord:
    """Who the shim is, since when, and which cgroups it is about to make, or has made: absolute folders."""

    process: ProcessIdentity
    started_wall_s: float
    cgroups: tuple[str, ...] = ()


@dataclass(frozen=True)
class RanksRecord:
    """Who the ranks are, by rank."""

    processes: tuple[ProcessIdentity, ...]


@dataclass(frozen=True)
class StallRecord:
    """The attempt lives and does not move, so it is ended.

    Attributes:
        silence_s: How long nothing of it had moved, in seconds.
        limit_s: How long that may last.
        doing: What it was doing meanwhile.
        wall_s: When that was decided, seconds since the epoch.
        detail: Where each rank stood, a line each.
    """

    silence_s: float
    limit_s: float
    doing: str
    wall_s: float
    detail: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankExit:
    """How one rank ended.

    Attributes:
        rank: Number of the rank.
        exit_code: What it exited with; None if a signal ended it or it never started.
        signal: Number of the signal that ended it, None if none did.
        killed_by_shim: Why the shim sent SIGKILL: past the grace period, asked to, or a peer rank died.
        spawn_error: Why it could not be started at all.
        rss_bytes_max: Largest resident set, in bytes.
        is_oom_victim: Whether the kernel's log says that it killed this process for lack of memory.
    """

    rank: int
    exit_code: int | None = None
    signal: int | None = None
    killed_by_shim: Literal["grace", "asked", "peer"] | None = None
    spawn_error: str | None = None
    rss_bytes_max: int = 0
    is_oom_victim: bool = False


@dataclass(frozen=True)
class ExitRecord:
    """How an attempt ended.

    Attributes:
        ranks: By rank.
        started_wall_s: When the shim began, seconds since the epoch.
        ended_wall_s: When no process was left.
        duration_s: Between the two, by a clock that does not jump.
        stop_requested_s: Seconds from start to the first request to stop, None if there was none.
        survivors_killed: Descendants other than ranks that had to be killed.
        background_killed: Those among them that a command had left in the background when it exited with 0,
            and that might have trained, but opened no session in time.
        boot_id: Of the boot in which this happened.
        oom_kills: How many processes of the attempt's cgroup the kernel ended for lack of memory meanwhile:
            those of other attempts count too if they share it, where it has none of its own.
        memory_bytes_max: The most memory that it held at once, in bytes; None if it was not counted.
        memory_limit_bytes: How much it was allowed; None if nothing saw to a limit.
    """

    ranks: tuple[RankExit, ...]
    started_wall_s: float
    ended_wall_s: float
    duration_s: float
    boot_id: str
    stop_requested_s: float | None = None
    survivors_killed: int = 0
    background_killed: int = 0
    oom_kills: int = 0
    memory_bytes_max: int | None = None
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class OutcomeRecord:
    """Why a rank leaves, in its own words.

    Attributes:
        kind: What it believes happened.
        step: Last finished step, None before the first.
        checkpoint: Name of the checkpoint it left, if any.
        error_type: Qualified name of the exception.
        error_message: Its text.
        detail: More lines, such as the end of the traceback or the differences of a mismatch.
    """

    kind: Literal[
        "finished",
        "drained",
        "exception",
        "mismatch",
        "out-of-memory",
        "no-space",
        "nonfinite-loss",
        "fenced",
    ]
    step: int | None = None
    checkpoint: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    detail: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinishedRecord:
    """The run is complete.

    Attributes:
        step: Last step.
        epoch: Epochs done.
        checkpoint: Name of the final checkpoint.
        spec_digest: Of the spec under which it finished, empty without a supervisor.
        wall_s: When, seconds since the epoch.
    """

    step: int
    epoch: int
    checkpoint: str
    spec_digest: str
    wall_s: float


@dataclass(frozen=True)
class NodeEndRecord:
    """Why one node of several is not to be waited for any more.

    Attributes:
        node: Its number, from 0.
        code: What its `trainerd exec` exits with.
        reason: One sentence.
        mark: Tells this end from an earlier one of the same node.
    """

    node: int
    code: int
    reason: str
    mark: str


_FORMATS: dict[type, str] = {
    LaunchRecord: "trainerd.launch/1",
    VoidRecord: "trainerd.void/1",
    ShimRecord: "trainerd.shim/1",
    RanksRecord: "trainerd.ranks/1",
    StallRecord: "trainerd.stall/1",
    ExitRecord: "trainerd.exit/1",
    OutcomeRecord: "trainerd.outcome/1",
    FinishedRecord: "trainerd.finished/1",
    NodeEndRecord: "trainerd.node-end/1",
}

_FOR_PEOPLE: Final = frozenset(
    {VoidRecord, StallRecord, ExitRecord, OutcomeRecord, FinishedRecord, NodeEndRecord}
)
"""Kinds whose texts are only stored and shown; paths, as in the others, must stay what they are."""

AnyRecord = TypeVar("AnyRecord")


def write(path: Path, record: object) -> None:
    """Write a record durably.

    Raises:
        SpaceError: The disk is full or read-only.
    """
    bounded = safe_value(record) if type(record) in _FOR_PEOPLE else record
    write_file(path, codec.to_json(bounded, _FORMATS[type(record)]))


def read(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """Read a record, None if there is none yet. What it says to people is made safe to show.

    Raises:
        CorruptError: There is one and it cannot be read.
        OSError: It could not be looked at, which says nothing about whether it is there.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        return None
    except NotRegularError as error:
        raise CorruptError(f"{path} {error.strerror}") from error
    record = codec.from_json(data, kind, _FORMATS[kind], source=path)
    return safe_value(record) if kind in _FOR_PEOPLE else record
