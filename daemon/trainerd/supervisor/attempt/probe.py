"""How an attempt stands, told from its records and from the processes they name.

Invariant: failing to observe is never evidence of death. A record that cannot be read, or a process that
cannot be looked at, makes an attempt `ProbedUnknown`; it is `ProbedLost` only if its shim is on record, is
certainly gone, and has left no exit record. A shim on another machine makes it `ProbedElsewhere`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainerd.contract import records
from trainerd.contract.process import ProcessIdentity, boot_id, is_alive, is_elsewhere
from trainerd.contract.records import ExitRecord, LaunchRecord, RanksRecord, ShimRecord, VoidRecord
from trainerd.contract.session_record import session_files
from trainerd.errors import CorruptError
from trainerd.shim.survivors import shim_by_mark

if TYPE_CHECKING:
    from trainerd.contract.paths import AttemptPaths


@dataclass(frozen=True)
class ProbedNotStarted:
    """Nothing of it ever ran. If `is_void`, nothing ever will; else there is no launch record yet."""

    reason: str
    is_void: bool


@dataclass(frozen=True)
class ProbedStarting:
    """The launch record is there and no shim has said who it is: one may or may not be on its way."""


@dataclass(frozen=True)
class ProbedRunning:
    """The shim lives. `ranks` is empty until it has recorded them.

    Its records may be gone, as its run folder was deleted: then the processes themselves have shown that.
    """

    shim: ProcessIdentity
    ranks: tuple[ProcessIdentity, ...] = ()
    has_records: bool = True


@dataclass(frozen=True)
class ProbedEnded:
    """It is over, and the shim has said how."""

    record: ExitRecord


@dataclass(frozen=True)
class ProbedLost:
    """The shim is gone and has not said how it ended. Ranks may still run: see `end_survivors`."""

    evidence: str
    shim: ProcessIdentity
    ranks: tuple[ProcessIdentity, ...] = ()


@dataclass(frozen=True)
class ProbedElsewhere:
    """Its shim is on another machine and has not said that it ended: it may or may not still run.

    Attributes:
        shim: The shim.
        has_session: Whether a process of it has opened a session, which a fence stops from saving.
    """

    shim: ProcessIdentity
    has_session: bool = True

    @property
    def evidence(self) -> str:
        """What is known of it, once its checkpoints folder is fenced."""
        host = self.shim.host or "another machine"
        if self.has_session:
            return (
                f"an attempt on {host} may still run; it is fenced: nothing that it saves from now on counts"
            )
        return (
            f"an attempt on {host} may still run; it had opened no session, and a plain command is not fenced"
        )


@dataclass(frozen=True)
class ProbedUnknown:
    """It could not be observed. Look again later."""

    why: str


ProbeResult = (
    ProbedNotStarted
    | ProbedStarting
    | ProbedRunning
    | ProbedEnded
    | ProbedLost
    | ProbedElsewhere
    | ProbedUnknown
)


def probe(paths: AttemptPaths) -> ProbeResult:
    """Return how an attempt stands now. Never raises for what it finds."""
    try:
        return _probe(paths)
    except CorruptError as error:
        return ProbedUnknown(str(error))
    except OSError as error:
        return ProbedUnknown(
            f"{error.filename} cannot be read: {error.strerror}" if error.filename else str(error)
        )


def _probe(paths: AttemptPaths) -> ProbeResult:
    ending = _ending(paths)
    if ending is not None:
        return ProbedEnded(ending)
    shim_record = records.read(paths.shim, ShimRecord)
    if shim_record is None:
        return _before_the_shim(paths)
    shim = shim_record.process
    if is_elsewhere(shim):
        return ProbedElsewhere(shim, has_session=bool(session_files(paths)))
    ranks_record = records.read(paths.ranks, RanksRecord)
    ranks = ranks_record.processes if ranks_record is not None else ()
    if is_alive(shim):
        return ProbedRunning(shim, ranks)
    # It may have recorded the exit and left since the first look.
    ending = _ending(paths)
    if ending is not None:
        return ProbedEnded(ending)
    if shim.boot_id != boot_id():
        return ProbedLost("the machine was restarted while the attempt ran", shim, ranks)
    return ProbedLost(f"its shim, process {shim.pid}, is gone and left no exit record", shim, ranks)


def _ending(paths: AttemptPaths) -> ExitRecord | None:
    """Return the exit record, None if there is none.

    Raises:
        CorruptError: It cannot be read, or says nothing: an attempt without ranks would count as finished.
    """
    record = records.read(paths.exit, ExitRecord)
    if record is not None and not record.ranks:
        raise CorruptError(f"{paths.exit}: it names no rank")
    return record


def _before_the_shim(paths: AttemptPaths) -> ProbeResult:
    void = records.read(paths.void, VoidRecord)
    if void is not None:
        return ProbedNotStarted(void.reason, is_void=True)
    if records.read(paths.launch, LaunchRecord) is not None:
        return ProbedStarting()
    # Either nothing was launched, or its folder was deleted while it ran: then it must not be taken for over.
    shim = shim_by_mark(paths.root)
    if shim is None:
        return ProbedNotStarted("there is no launch record", is_void=False)
    if is_alive(shim):
        return ProbedRunning(shim, has_records=False)
    return ProbedLost(f"its run folder was deleted, and its shim, process {shim.pid}, is gone", shim)
