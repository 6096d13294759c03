"""Keeps one live attempt: launches it, asks it to stop, sees it end, and says so as events.

Invariants: everything it says is a fact that it saw. It never gives up: what cannot be observed is looked at
again, since an attempt that is not watched would hold its slot for ever. It decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from trainerd.contract import records, resolved
from trainerd.contract.durable import make_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import Heartbeat, read_heartbeat
from trainerd.contract.process import ProcessIdentity, boot_id
from trainerd.contract.records import StallRecord
from trainerd.errors import CorruptError, InternalError, SpaceError, TrainerdError, TryAgainError
from trainerd.supervisor.attempt.evidence import gather_evidence, script_marks
from trainerd.supervisor.attempt.gpu_release import TEARDOWN_LIMIT_S
from trainerd.supervisor.attempt.launch_record import launch_record
from trainerd.supervisor.attempt.probe import (
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    ProbedRunning,
    ProbedUnknown,
)
from trainerd.supervisor.attempt.rollback import go_back
from trainerd.supervisor.attempt.stacks import show_stacks
from trainerd.supervisor.attempt.stall import Sight, Stall, Watch, after_look, learned, silence_limit_s
from trainerd.supervisor.machine.job_events import (
    AttemptEnded,
    AttemptSeen,
    AttemptVoided,
    DrainSignalled,
    LaunchFailed,
    ObservationFailed,
    ProgressSeen,
    StallSeen,
)
from trainerd.supervisor.machine.outcome import Evidence, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from trainerd.contract.clock import Clock
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.records import ExitRecord
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.attempt.launcher import Launcher
    from trainerd.supervisor.machine.job_events import Event

LOOK_AGAIN_S: Final = 1.0
"""Between two tries to do or see what could not be done or seen."""

SIGNAL_RETRY_S: Final = 0.05
"""Between two tries to signal an adopted shim that has not said yet who it is."""

EVIDENCE_TRIES: Final = 30
"""How often checkpoints that cannot be looked at are looked at again, before judging without them."""

ATTEMPTS_LEARNED_FROM: Final = 5
"""How many attempts before this one are asked how long silences were that ended by themselves."""

STALL_SHOWN = declare(
    "stall.shown", "stacks in the logs of a stalled attempt that runs on; the next supervisor ends it"
)
STALL_RECORDED = declare("stall.recorded", "a stalled attempt, on record as such, that runs on; likewise")

_log = structlog.get_logger(__name__)


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


class Monitor:
    """Keeps one attempt.

    Args:
        attempt: Which.
        launcher: Does things to processes.
        say: Takes the events.
        clock: Dates endings that nobody saw.
        begin: Starts a task.
        turns: Held while the attempt is launched; None for no turns.
        environ: The supervisor's own environment.
    """

    def __init__(
        self,
        attempt: MonitoredAttempt,
        *,
        launcher: Launcher,
        say: Callable[[Event], None],
        clock: Clock,
        begin: Callable[[Coroutine[Any, Any, None]], object],
        turns: asyncio.Semaphore | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.attempt = attempt
        self.shim: ProcessIdentity | None = None
        self.ranks: tuple[ProcessIdentity, ...] = ()
        self.heartbeat: Heartbeat | None = None
        self._paths = attempt.run.attempt(attempt.number)
        self._launcher = launcher
        self._say = say
        self._clock = clock
        self._environ = environ
        self._begin = begin
        self._turns = turns
        self._is_launched = asyncio.Event()
        self._said_now: Heartbeat | None = None
        self._has_said_progress = False
        self._watch_of_silence: Watch | None = None
        self._stall: Stall | None = None
        self._is_ending_stalled = False

    def launch(self) -> None:
        """Start the attempt and keep it."""
        self._begin(self._launch_and_watch())

    def adopt(self) -> None:
        """Keep an attempt that was launched before, perhaps."""
        self._read_heartbeat()
        self._is_launched.set()
        self._begin(self._watch())

    def drain(self) -> None:
        """Ask the ranks, through the shim, to checkpoint and leave."""
        self._begin(self._drain())

    def signal(self, signum: int) -> bool:
        """Send the shim a signal, if it can be told who it is. Return whether it was sent."""
        try:
            return self._launcher.signal(self._paths, signum)
        except (TryAgainError, CorruptError, OSError) as error:
            self._warn("attempt.not-signalled", error)
            return False

    def look_for_progress(self, best_step: int) -> None:
        """Read the heartbeats, and say once when the attempt has gone beyond `best_step`."""
        self._read_heartbeat()
        if self.heartbeat is None or self._has_said_progress:
            return
        if self.heartbeat.step > max(best_step, self.heartbeat.resumed_step, 0):
            self._has_said_progress = True
            self._say(ProgressSeen(self.attempt.number, self.heartbeat.step))

    def look_for_stall(self) -> None:
        """Look at what every rank says, and say when the attempt stands still. Right after `look_for_progress`."""
        if self._watch_of_silence is None:
            self._watch_of_silence = self._new_watch()
        watch = self._watch_of_silence
        if watch.timeout is None:
            return
        self._watch_of_silence, stall = after_look(
            watch, self._sight(self._said_now), self._clock.monotonic_s()
        )
        if stall is not None:
            self._stall = stall
            self._say(StallSeen(self.attempt.number, stall.reason))

    def _sight(self, first: Heartbeat | None) -> Sight:
        ranks = range(self.attempt.job.nproc)
        beats = (first, *(self._beat(rank) for rank in ranks[1:]))
        logs = () if any(beats) else tuple(_size(self.attempt.run.rank_log(rank)) for rank in ranks)
        return Sight(beats, logs)

    def _stall_found(self) -> Stall:
        """Describe the stall that the supervisor before this one saw."""
        sight = self._sight(self._beat(0))
        watch, _ = after_look(self._new_watch(), sight, self._clock.monotonic_s())
        limit_s, doing = silence_limit_s(watch, sight.beats)
        return Stall(watch.silence_s, limit_s or 0.0, doing)

    def end_stalled(self) -> None:
        """Have the ranks show where they stand, then end them."""
        if not self._is_ending_stalled:
            self._is_ending_stalled = True
            self._begin(self._end_stalled())

    def _new_watch(self) -> Watch:
        """Begin to watch, with what earlier attempts of the job have shown."""
        shown = []
        for number in range(max(1, self.attempt.number - ATTEMPTS_LEARNED_FROM), self.attempt.number):
            for rank in range(self.attempt.job.nproc):
                with contextlib.suppress(OSError, ValueError):
                    beat = read_heartbeat(self.attempt.run.attempt(number).heartbeat(rank))
                    shown += [beat] if beat is not None else []
        return Watch(
            self.attempt.job.stall_timeout_s,
            learned(shown),
            has_session=bool(shown),
            stalls=self.attempt.stalls,
        )

    def _beat(self, rank: int) -> Heartbeat | None:
        with contextlib.suppress(OSError, ValueError):
            return read_heartbeat(self._paths.heartbeat(rank))
        return None

    async def _end_stalled(self) -> None:
        await asyncio.to_thread(self._record_stall)
        while True:
            try:
                self._launcher.signal(self._paths, signal.SIGQUIT)
            except (TryAgainError, CorruptError, OSError) as error:
                self._warn("attempt.not-signalled", error)
                await asyncio.sleep(LOOK_AGAIN_S)
            else:
                return

    def _record_stall(self) -> None:
        """Write down why it is about to be ended. A crash before leaves a stall that is seen again."""
        try:
            if records.read(self._paths.stall, StallRecord) is not None:
                return  # the supervisor before this one did, and died before it ended them
            run, stall = self.attempt.run, self._stall or self._stall_found()
            logs = [run.rank_log(rank) for rank in range(self.attempt.job.nproc)]
            gist = show_stacks(
                self.ranks, logs, headline=f"attempt {self.attempt.number} is stalled: {stall.reason}"
            )
            STALL_SHOWN.hit()
            records.write(
                self._paths.stall,
                StallRecord(
                    silence_s=stall.silence_s,
                    limit_s=stall.limit_s,
                    doing=stall.doing.name.lower(),
                    wall_s=self._clock.wall_s(),
                    detail=gist,
                ),
            )
            STALL_RECORDED.hit()
        except (TrainerdError, OSError) as error:
            self._warn("attempt.stall-not-recorded", error)

    def _read_heartbeat(self) -> None:
        self._said_now = self._beat(0)
        # An unreadable page is unknown: what it said last stays.
        self.heartbeat = self._said_now or self.heartbeat

    async def _launch_and_watch(self) -> None:
        try:
            async with self._turns or contextlib.nullcontext():
                await asyncio.to_thread(self._launch)
        except InternalError:
            raise
        except (TrainerdError, OSError) as error:
            with contextlib.suppress(TrainerdError, OSError):
                # Without its record no shim would start anyway; with it, this seals the attempt.
                await asyncio.to_thread(self._launcher.void, self._paths, "it could not be launched")
            is_space = isinstance(error, SpaceError)
            self._say(LaunchFailed(self.attempt.number, str(error), is_for_want_of_space=is_space))
            return
        self._is_launched.set()
        await self._watch()

    def _launch(self) -> None:
        run = self.attempt.run
        make_directory(run.rank_log(0).parent)
        if self.attempt.goes_back_to is not None:
            reason = f"attempt {self.attempt.number} went back to {self.attempt.goes_back_to}"
            go_back(run, self.attempt.goes_back_to, reason=reason)
        # For people and tools that read the run folder with no daemon. A crash here leaves the old one.
        write_file(run.job, resolved.encode(self.attempt.job))
        record = launch_record(
            self.attempt.job, run, self.attempt.number, environ=self._environ, gpus=self.attempt.gpus
        )
        self._launcher.launch(self._paths, record)

    async def _drain(self) -> None:
        await self._is_launched.wait()
        while True:
            try:
                if self._launcher.signal(self._paths, signal.SIGTERM):
                    self._say(DrainSignalled(self.attempt.number))
            except TryAgainError:
                await asyncio.sleep(SIGNAL_RETRY_S)
            except (CorruptError, OSError) as error:
                self._warn("attempt.not-signalled", error)
                await asyncio.sleep(LOOK_AGAIN_S)
            else:
                return

    async def _watch(self) -> None:
        while True:
            try:
                await self._watch_once()
            except (TrainerdError, OSError) as error:
                if isinstance(error, InternalError):
                    raise
                self._say(ObservationFailed(self.attempt.number, str(error)))
                await asyncio.sleep(LOOK_AGAIN_S)
            else:
                return

    async def _watch_once(self) -> None:
        async for state in self._launcher.watch(self._paths):
            match state:
                case ProbedRunning(shim, ranks):
                    self.shim, self.ranks = shim, ranks
                    self._say(AttemptSeen(self.attempt.number))
                case ProbedUnknown(why):
                    self._say(ObservationFailed(self.attempt.number, why))
                case ProbedNotStarted():
                    self._say(AttemptVoided(self.attempt.number))
                case ProbedEnded(record):
                    await self._await_gpus()
                    await self._conclude(await self._evidence(ending=record))
                case ProbedLost(evidence, shim):
                    # Before anything else: nobody of this attempt may be left when the next one starts.
                    killed = await asyncio.to_thread(self._launcher.end_survivors, self._paths)
                    why = (
                        f"{evidence}; {killed} processes that it had left were ended" if killed else evidence
                    )
                    await self._await_gpus()
                    is_after_reboot = shim.boot_id != boot_id()
                    await self._conclude(
                        await self._evidence(lost_because=why, is_after_reboot=is_after_reboot)
                    )
                case _:
                    pass

    async def _await_gpus(self) -> None:
        """Return when nobody of the attempt holds its GPUs. Until then it is not over, and its slot is taken."""
        waited_s = 0.0
        while self.attempt.gpus:
            held = await asyncio.to_thread(self._launcher.release_gpus, self._paths, self.attempt.gpus)
            if not held.living and (not held.gone or waited_s >= TEARDOWN_LIMIT_S):
                return
            pids = ", ".join(str(pid) for pid in (*(one.pid for one in held.living), *held.gone))
            self._say(ObservationFailed(self.attempt.number, f"its GPUs are still held by process {pids}"))
            await asyncio.sleep(LOOK_AGAIN_S)
            waited_s += LOOK_AGAIN_S

    async def _evidence(
        self, *, ending: ExitRecord | None = None, lost_because: str = "", is_after_reboot: bool = False
    ) -> Evidence:
        tries = 0
        while True:
            tries += 1
            try:
                return await asyncio.to_thread(
                    gather_evidence,
                    self.attempt.job,
                    self.attempt.run,
                    self.attempt.number,
                    spec_digest=self.attempt.spec_digest,
                    ending=ending,
                    lost_because=lost_because,
                    is_after_reboot=is_after_reboot,
                    looks_at_checkpoints=tries <= EVIDENCE_TRIES,
                )
            except (TrainerdError, OSError) as error:
                if isinstance(error, InternalError):
                    raise
                self._say(ObservationFailed(self.attempt.number, str(error)))
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _conclude(self, evidence: Evidence) -> None:
        outcome = judge(evidence, now_wall_s=self._clock.wall_s())
        self._read_heartbeat()
        self.ranks = ()
        self._say(AttemptEnded(self.attempt.number, outcome, script_marks(self.attempt.job)))

    def _warn(self, event: str, error: Exception) -> None:
        _log.warning(event, job=self.attempt.job.name, attempt=self.attempt.number, reason=str(error))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
