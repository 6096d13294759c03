"""Keeps one live attempt: launches it, asks it to stop, sees it end, and says so as events.

Invariants: everything it says is a fact that it saw. It never gives up: what cannot be observed is looked at
again, since an attempt that is not watched would hold its slot for ever. It decides nothing. Nothing here
blocks the event loop: what touches a run folder runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.counted import counted
from trainerd.contract.heartbeat import Heartbeat
from trainerd.contract.process import ProcessIdentity, boot_id
from trainerd.contract.signals import SECOND_AFTER_S
from trainerd.errors import CorruptError, InternalError, SpaceError, TrainerdError, TryAgainError
from trainerd.supervisor.attempt.gpu_release import TEARDOWN_LIMIT_S
from trainerd.supervisor.attempt.probe import (
    ProbedElsewhere,
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    ProbedRunning,
    ProbedUnknown,
)
from trainerd.supervisor.attempt.run_files import DiskRunFiles, MonitoredAttempt, RunFiles
from trainerd.supervisor.attempt.stall import Sight, Stall, Watch, after_look, learned, silence_limit_s
from trainerd.supervisor.bounded_io import BoundedIo, NotObservedError
from trainerd.supervisor.log.say import log_event
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
    from trainerd.contract.paths import AttemptPaths
    from trainerd.contract.records import ExitRecord, LaunchRecord
    from trainerd.supervisor.attempt.launcher import Launcher
    from trainerd.supervisor.attempt.run_news import RankFinding, Told
    from trainerd.supervisor.machine.job_events import Event
    from trainerd.supervisor.machine.states import FileMark

LOOK_AGAIN_S: Final = 1.0
"""Between two tries to do or see what could not be done or seen."""

LATE_S_MAX: Final = 1.0
"""How late a shim may read the first request to stop, in seconds, and still take the second for one."""

SIGNAL_RETRY_S: Final = 0.05
"""Between two tries to signal an adopted shim that has not said yet who it is."""

EVIDENCE_TRIES: Final = 30
"""How often checkpoints that cannot be looked at are looked at again, before judging without them."""

LAUNCH_TURN_S: Final = 10.0
"""How long a launch may keep others from being launched, in seconds."""

ATTEMPTS_LEARNED_FROM: Final = 5
"""How many attempts before this one are asked how long silences were that ended by themselves."""


@dataclass(frozen=True)
class Look:
    """What one look at an attempt saw.

    Attributes:
        first: What rank 0 said last, None if it said nothing or could not be read.
        sight: What all ranks showed, where a stall is looked for.
        watch: What earlier attempts showed, at the first look for a stall.
        at_s: When, by the clock that does not jump.
        news: What the ranks have found.
    """

    first: Heartbeat | None
    sight: Sight | None
    watch: Watch | None
    at_s: float
    news: tuple[RankFinding, ...] = ()


class Monitor:
    """Keeps one attempt.

    Args:
        attempt: The attempt to watch.
        launcher: Does things to processes.
        say: Takes the events.
        clock: Dates endings that no process saw.
        begin: Starts a task.
        turns: Held while the attempt is launched; None for no turns.
        files: The run folders.
        io: Makes the calls that block.
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
        files: RunFiles | None = None,
        io: BoundedIo | None = None,
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
        self._files = files if files is not None else DiskRunFiles()
        self._io = io if io is not None else BoundedIo()
        self._is_launched = asyncio.Event()
        self._is_draining = False
        self._has_said_progress = False
        self._watch_of_silence: Watch | None = None
        self._stall: Stall | None = None
        self._is_ending_stalled = False
        self._told: Told | None = None
        self._telling = threading.Lock()  # a look that hung may end while the next one is made
        self._asked_to_stop_s: float | None = None  # when the shim was first sent SIGTERM from here

    def launch(self) -> None:
        """Start the attempt and keep it."""
        self._begin(self._launch_and_watch())

    def adopt(self) -> None:
        """Keep an attempt that was launched before, perhaps."""
        self._is_launched.set()
        self._begin(self._adopt())

    def drain(self) -> None:
        """Ask the ranks, through the shim, to checkpoint and leave.

        Asked again while the request is on its way, or after it was delivered, nothing more is sent: the
        shim may take a second signal for a request to leave at once.
        """
        if not self._is_draining:
            self._is_draining = True
            self._begin(self._drain())

    def hurry(self) -> None:
        """Ask the ranks, through the shim, to save what they hold and leave now.

        That is what a second request says. The shim takes one that comes too soon after the first for the
        same request, so it is sent when it counts, also if the first one was sent late.
        """
        self._begin(self._hurry())

    def kill(self) -> None:
        """Have the shim kill the ranks, soon, if it can be told who it is."""
        self._begin(self._signal_once(signal.SIGQUIT))

    @property
    def next_paths(self) -> AttemptPaths:
        """Folder of the attempt that would come after this one."""
        return self.attempt.run.attempt(self.attempt.number + 1)

    @property
    def note_path(self) -> Path:
        """Where the attempt notes what it imports."""
        return self.attempt.run.modules

    def expected_next(self) -> LaunchRecord:
        """Return what the next attempt would start, if nothing changes."""
        after = replace(self.attempt, number=self.attempt.number + 1, goes_back_to=None)
        return self._files.expected(after, self._environ)

    async def _hurry(self) -> None:
        if self._asked_to_stop_s is None:
            await self._signal_once(signal.SIGTERM)
        if self._asked_to_stop_s is not None:
            # Once more: a shim that read the first request late, on a busy machine, takes the second for it.
            for after_s in (SECOND_AFTER_S, SECOND_AFTER_S + LATE_S_MAX):
                await asyncio.sleep(self._asked_to_stop_s + after_s - self._clock.monotonic_s())
                await self._signal_once(signal.SIGTERM)

    async def _signal_once(self, signum: int) -> None:
        try:
            await self._send(signum)
        except (TryAgainError, CorruptError, OSError) as error:
            self._warn("attempt.not-signalled", error)

    async def _send(self, signum: int) -> bool:
        # Without a limit: a signal that is sent later all the same would be one too many.
        is_there = await self._io.act(lambda: self._launcher.signal(self._paths, signum))
        if signum == signal.SIGTERM and self._asked_to_stop_s is None:
            self._asked_to_stop_s = self._clock.monotonic_s()
        return is_there

    def look(self, *, for_stall: bool) -> Look:
        """Look at what the ranks say. Changes nothing; blocks, so it is called in a thread.

        Args:
            for_stall: Whether all ranks count, or the first one alone.
        """
        first, news = self._beat(0), self._news()
        if not for_stall or self.attempt.job.stall_timeout_s is None:
            return Look(first, None, None, self._clock.monotonic_s(), news)
        watch = self._new_watch() if self._watch_of_silence is None else None
        return Look(first, self._sight(first), watch, self._clock.monotonic_s(), news)

    def _news(self) -> tuple[RankFinding, ...]:
        with self._telling:
            news, self._told = self._files.findings(self.attempt.run, self.attempt.number, self._told)
        return tuple(news)

    def _tell(self, news: tuple[RankFinding, ...]) -> None:
        for finding in news:
            about = {"job": self.attempt.job.name, "attempt": self.attempt.number}
            log_event(finding.event, **about, **finding.fields)

    def take_in(self, look: Look, *, best_step: int) -> None:
        """Say what a look has found.

        It is said once that the attempt has gone beyond `best_step`, and once that it stands still.
        """
        self._tell(look.news)
        # An unreadable page is unknown: what it said last stays.
        beat = self.heartbeat = look.first or self.heartbeat
        if (
            beat is not None
            and not self._has_said_progress
            and beat.step > max(best_step, beat.resumed_step, 0)
        ):
            self._has_said_progress = True
            self._say(ProgressSeen(self.attempt.number, beat.step))
        watch = self._watch_of_silence or look.watch
        if watch is None or look.sight is None:
            return
        self._watch_of_silence, stall = after_look(watch, look.sight, look.at_s)
        if stall is not None:
            self._stall = stall
            self._say(StallSeen(self.attempt.number, stall.reason))

    def _sight(self, first: Heartbeat | None) -> Sight:
        run, ranks = self.attempt.run, range(self.attempt.job.nproc)
        beats = (first, *(self._beat(rank) for rank in ranks[1:]))
        logs = () if any(beats) else tuple(self._files.log_bytes(run, rank) for rank in ranks)
        return Sight(beats, logs)

    def _stall_found(self) -> Stall:
        """Describe the stall that was seen here, else the one that the supervisor before this one saw.

        Blocks.
        """
        if self._stall is not None:
            return self._stall
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
        """Begin to watch, with what earlier attempts of the job have shown. Blocks."""
        newest = self.attempt.number
        said = [
            self._files.heartbeat(self.attempt.run, number, rank)
            for number in range(max(1, newest - ATTEMPTS_LEARNED_FROM), newest)
            for rank in range(self.attempt.job.nproc)
        ]
        shown = [beat for beat in said if beat is not None]
        return Watch(
            self.attempt.job.stall_timeout_s,
            learned(shown),
            has_session=bool(shown),
            stalls=self.attempt.stalls,
        )

    def _beat(self, rank: int) -> Heartbeat | None:
        return self._files.heartbeat(self.attempt.run, self.attempt.number, rank)

    async def _end_stalled(self) -> None:
        await self._io.act(self._record_stall)
        while True:
            try:
                await self._send(signal.SIGQUIT)
            except (TryAgainError, CorruptError, OSError) as error:
                self._warn("attempt.not-signalled", error)
                await asyncio.sleep(LOOK_AGAIN_S)
            else:
                return

    def _record_stall(self) -> None:
        """Write down why it is about to be ended. A crash before leaves a stall that is seen again."""
        try:
            self._files.record_stall(self.attempt, self.ranks, self._stall_found, wall_s=self._clock.wall_s())
        except (TrainerdError, OSError) as error:
            self._warn("attempt.stall-not-recorded", error)

    async def _adopt(self) -> None:
        with contextlib.suppress(NotObservedError):
            self.heartbeat = await self._io.observe(self._paths.root, partial(self._beat, 0))
        await self._watch()

    async def _launch_and_watch(self) -> None:
        try:
            await self._launch_in_turn()
        except InternalError:
            raise
        except (TrainerdError, OSError) as error:
            with contextlib.suppress(TrainerdError, OSError):
                # Without its record no shim would start anyway; with it, this seals the attempt.
                await self._io.act(lambda: self._launcher.void(self._paths, "it could not be launched"))
            is_space = isinstance(error, SpaceError)
            self._say(LaunchFailed(self.attempt.number, str(error), is_for_want_of_space=is_space))
            return
        self._is_launched.set()
        await self._watch()

    async def _launch_in_turn(self) -> None:
        async with self._turns or contextlib.nullcontext():
            launch = asyncio.ensure_future(self._io.act(self._launch))
            # Retrieved even if this task is cancelled first.
            launch.add_done_callback(lambda done: done.cancelled() or done.exception())
            # One that hangs gives its turn to the next, and goes on.
            await asyncio.wait({launch}, timeout=LAUNCH_TURN_S)
        await launch

    def _launch(self) -> None:
        self._launcher.launch(self._paths, self._files.prepare(self.attempt, self._environ))

    async def _drain(self) -> None:
        await self._is_launched.wait()
        while True:
            try:
                self._is_draining = await self._send(signal.SIGTERM)
                if self._is_draining:
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
                    # Before anything else: no process of this attempt may be left when the next one starts.
                    killed = await self._io.act(lambda: self._launcher.end_survivors(self._paths))
                    processes = counted(
                        killed, "process that it had left was", "processes that it had left were"
                    )
                    why = f"{evidence}; {processes} ended" if killed else evidence
                    await self._await_gpus()
                    is_after_reboot = shim.boot_id != boot_id()
                    await self._conclude(
                        await self._evidence(lost_because=why, is_after_reboot=is_after_reboot)
                    )
                case ProbedElsewhere():
                    # Unknown, not dead. It is kept from saving before the next one starts.
                    await self._io.act(lambda: self._files.fence(self.attempt.run))
                    await self._conclude(
                        await self._evidence(lost_because=state.evidence, is_after_reboot=True)
                    )
                case _:
                    pass

    async def _await_gpus(self) -> None:
        """Return when no process of the attempt holds its GPUs.

        Until then it is not over, and its slot is taken.
        """
        waited_s = 0.0
        while self.attempt.gpus:
            held = await self._io.act(lambda: self._launcher.release_gpus(self._paths, self.attempt.gpus))
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
                return await self._io.act(
                    partial(
                        self._files.evidence,
                        self.attempt,
                        ending,
                        lost_because=lost_because,
                        is_after_reboot=is_after_reboot,
                        looks_at_checkpoints=tries <= EVIDENCE_TRIES,
                    )
                )
            except (TrainerdError, OSError) as error:
                if isinstance(error, InternalError):
                    raise
                self._say(ObservationFailed(self.attempt.number, str(error)))
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _conclude(self, evidence: Evidence) -> None:
        outcome = judge(evidence, now_wall_s=self._clock.wall_s())
        marks: tuple[FileMark, ...] = ()
        try:
            beat, marks, news = await self._io.observe(self._paths.root, self._last_look)
            self.heartbeat = beat or self.heartbeat
            self._tell(news)
        except NotObservedError as error:
            self._warn("attempt.script-not-observed", error)
        self.ranks = ()
        self._say(AttemptEnded(self.attempt.number, outcome, marks))

    def _last_look(self) -> tuple[Heartbeat | None, tuple[FileMark, ...], tuple[RankFinding, ...]]:
        return self._beat(0), self._files.script_marks(self.attempt.job), self._news()

    def _warn(self, event: str, error: Exception) -> None:
        about = {"job": self.attempt.job.name, "attempt": self.attempt.number}
        log_event(event, **about, reason=str(error))
