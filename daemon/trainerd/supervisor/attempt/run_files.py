"""What the loop and the monitors read and write in run folders. Every call blocks: it is made in a thread."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from trainerd.contract import records, resolved
from trainerd.contract.ancestry import line_of_descent
from trainerd.contract.durable import make_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.process import is_alive
from trainerd.contract.records import StallRecord
from trainerd.contract.session_record import read_sessions
from trainerd.supervisor.attempt.disk_space import has_room
from trainerd.supervisor.attempt.evidence import gather_evidence, script_marks
from trainerd.supervisor.attempt.launch_record import launch_record
from trainerd.supervisor.attempt.probe import ProbedEnded, ProbedLost, ProbedNotStarted, probe
from trainerd.supervisor.attempt.rollback import go_back
from trainerd.supervisor.attempt.run_news import Told, look_for_findings, note_what_is_aside
from trainerd.supervisor.attempt.stacks import show_stacks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.node_place import Place
    from trainerd.contract.paths import AttemptPaths, RunPaths
    from trainerd.contract.process import ProcessIdentity
    from trainerd.contract.records import ExitRecord, LaunchRecord
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.attempt.run_news import RankFinding
    from trainerd.supervisor.attempt.stall import Stall
    from trainerd.supervisor.machine.outcome import Evidence
    from trainerd.supervisor.machine.states import FileMark

_ATTEMPT_NAME: Final = re.compile("[0-9]{6,9}")

STALL_SHOWN = declare(
    "stall.shown", "stacks in the logs of a stalled attempt that runs on; the next supervisor ends it"
)
STALL_RECORDED = declare("stall.recorded", "a stalled attempt, on record as such, that runs on; likewise")


@dataclass(frozen=True)
class MonitoredAttempt:
    """What is to be kept.

    Attributes:
        job: The spec under which it was launched, or the newest.
        run: The run folder.
        number: Of the attempt.
        spec_digest: Of the spec under which it was launched.
        gpus: Indices of the GPUs it was given.
        goes_back_to: Checkpoint from which it is to go on, leaving newer ones behind; None for the newest.
        stalls: Stalled attempts in a row before it.
    """

    job: ResolvedJob
    run: RunPaths
    number: int
    spec_digest: str
    gpus: tuple[int, ...] = ()
    goes_back_to: str | None = None
    stalls: int = 0


class RunFiles(Protocol):
    """The run folders."""

    def newest_attempt(self, run: RunPaths) -> tuple[int, bool]:
        """Return the newest attempt in a run folder, 0 for none, and whether it may live.

        Its journal may be lost.
        """
        ...

    def has_room(self, run: RunPaths) -> bool:
        """Return whether a checkpoint as large as the newest one would fit. Unknown counts as no."""
        ...

    def script_marks(self, job: ResolvedJob) -> tuple[FileMark, ...]:
        """Return what the files look like that a command names."""
        ...

    def heartbeat(self, run: RunPaths, attempt: int, rank: int) -> Heartbeat | None:
        """Return what a rank said last; None if it said nothing, or if that cannot be read."""
        ...

    def log_bytes(self, run: RunPaths, rank: int) -> int:
        """Return the size of a rank's log, 0 if there is none."""
        ...

    def findings(self, run: RunPaths, attempt: int, told: Told | None) -> tuple[list[RankFinding], Told]:
        """Return what the ranks of an attempt found since the last call, and what was told by then."""
        ...

    def prepare(self, attempt: MonitoredAttempt, environ: Mapping[str, str]) -> LaunchRecord:
        """Make a run folder ready for an attempt, and return what its shim is to start.

        Raises:
            TrainerdError: It cannot be made ready.
            OSError: Likewise.
        """
        ...

    def expected(self, attempt: MonitoredAttempt, environ: Mapping[str, str]) -> LaunchRecord:
        """Return what the shim of an attempt would be told to start. Changes nothing."""
        ...

    def fence(self, run: RunPaths) -> None:
        """Keep an attempt on another machine from saving anything more, wherever it is.

        Raises:
            TrainerdError: It cannot be fenced now.
            OSError: Likewise.
        """
        ...

    def record_stall(
        self,
        attempt: MonitoredAttempt,
        ranks: Sequence[ProcessIdentity],
        describe: Callable[[], Stall],
        *,
        wall_s: float,
    ) -> None:
        """Show where the ranks stand in their logs and record the stall, unless a record is there already.

        Raises:
            TrainerdError: It cannot be recorded.
            OSError: Likewise.
        """
        ...

    def evidence(
        self,
        attempt: MonitoredAttempt,
        ending: ExitRecord | None,
        *,
        lost_because: str,
        is_after_reboot: bool,
        looks_at_checkpoints: bool,
    ) -> Evidence:
        """Collect what is known of an attempt of which no process is left.

        Raises:
            OSError: The checkpoints cannot be looked at now: unknown, to be tried again.
        """
        ...


def _trainers(paths: AttemptPaths, ranks: Sequence[ProcessIdentity]) -> list[ProcessIdentity]:
    """Return the process that trains for each rank: its session, if its command is a launcher or a shell."""
    found = list(ranks)
    for session in read_sessions(paths):
        if session.rank >= len(found):
            continue
        with contextlib.suppress(OSError):
            is_below = bool(line_of_descent(session.process.pid, ranks[session.rank].pid))
            if is_below and is_alive(session.process):
                found[session.rank] = session.process
    return found


class DiskRunFiles:
    """The run folders as they are on the disk.

    Args:
        log_bytes_max: Size at which the log of a rank is moved aside.
        log_copies: How many of those moved aside are kept for each rank.
        place: Which node of several this is, None for a job of one.
    """

    def __init__(
        self,
        *,
        log_bytes_max: int = records.RANK_LOG_BYTES_MAX,
        log_copies: int = records.RANK_LOG_COPIES,
        place: Place | None = None,
    ) -> None:
        self._log_bytes_max = log_bytes_max
        self._log_copies = log_copies
        self._place = place

    def newest_attempt(self, run: RunPaths) -> tuple[int, bool]:
        if not run.attempts.is_dir():
            return 0, False
        numbers = [
            int(path.name)
            for path in run.attempts.iterdir()
            if _ATTEMPT_NAME.fullmatch(path.name) and path.is_dir()
        ]
        if not numbers:
            return 0, False
        state = probe(run.attempt(max(numbers)))
        return max(numbers), not isinstance(state, ProbedEnded | ProbedNotStarted | ProbedLost)

    def has_room(self, run: RunPaths) -> bool:
        return has_room(run)

    def script_marks(self, job: ResolvedJob) -> tuple[FileMark, ...]:
        return script_marks(job)

    def heartbeat(self, run: RunPaths, attempt: int, rank: int) -> Heartbeat | None:
        with contextlib.suppress(OSError):
            return read_heartbeat(run.attempt(attempt).heartbeat(rank))
        return None

    def log_bytes(self, run: RunPaths, rank: int) -> int:
        try:
            return run.rank_log(rank).stat().st_size
        except OSError:
            return 0

    def findings(self, run: RunPaths, attempt: int, told: Told | None) -> tuple[list[RankFinding], Told]:
        try:
            return look_for_findings(run, attempt, told)
        except OSError:
            return [], told or Told()

    def prepare(self, attempt: MonitoredAttempt, environ: Mapping[str, str]) -> LaunchRecord:
        run = attempt.run
        make_directory(run.rank_log(0).parent)
        if attempt.goes_back_to is not None:
            go_back(
                run,
                attempt.goes_back_to,
                reason=f"attempt {attempt.number} went back to {attempt.goes_back_to}",
            )
        with contextlib.suppress(OSError):
            note_what_is_aside(run, attempt.number)
        # For people and tools that read the run folder with no daemon. A crash here leaves the old one.
        # Hooks are the supervisor's business, and may hold secrets.
        write_file(run.job, resolved.encode(replace(attempt.job, notify=())))
        return self.expected(attempt, environ)

    def expected(self, attempt: MonitoredAttempt, environ: Mapping[str, str]) -> LaunchRecord:
        record = launch_record(
            attempt.job,
            attempt.run,
            attempt.number,
            environ=environ,
            gpus=attempt.gpus,
            place=self._place,
        )
        return replace(record, log_bytes_max=self._log_bytes_max, log_copies=self._log_copies)

    def fence(self, run: RunPaths) -> None:
        from trainerd.checkpoint.store import CheckpointStore  # as for evidence

        CheckpointStore.of_run(run).fence_off()

    def record_stall(
        self,
        attempt: MonitoredAttempt,
        ranks: Sequence[ProcessIdentity],
        describe: Callable[[], Stall],
        *,
        wall_s: float,
    ) -> None:
        run, path = attempt.run, attempt.run.attempt(attempt.number).stall
        if records.read(path, StallRecord) is not None:
            return  # the supervisor before this one did, and died before it ended them
        stall = describe()
        logs = [run.rank_log(rank) for rank in range(attempt.job.nproc)]
        trainers = _trainers(run.attempt(attempt.number), ranks)
        gist = show_stacks(trainers, logs, headline=f"attempt {attempt.number} is stalled: {stall.reason}")
        STALL_SHOWN.hit()
        records.write(
            path,
            StallRecord(
                silence_s=stall.silence_s,
                limit_s=stall.limit_s,
                doing=stall.doing.name.lower(),
                wall_s=wall_s,
                detail=gist,
            ),
        )
        STALL_RECORDED.hit()

    def evidence(
        self,
        attempt: MonitoredAttempt,
        ending: ExitRecord | None,
        *,
        lost_because: str,
        is_after_reboot: bool,
        looks_at_checkpoints: bool,
    ) -> Evidence:
        return gather_evidence(
            attempt.job,
            attempt.run,
            attempt.number,
            spec_digest=attempt.spec_digest,
            ending=ending,
            lost_because=lost_because,
            is_after_reboot=is_after_reboot,
            looks_at_checkpoints=looks_at_checkpoints,
        )
