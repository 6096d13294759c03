"""One attempt from its first rank to its exit record: the effects around `policy`.

Invariants: the ranks are this process's children and are reaped nowhere but in `_reap`, so the pid of one
that is not yet in `_exits` cannot have passed to a stranger. Everything happens in one thread, between two
waits for a signal. The exit record is written when no process is left, and only then does the shim leave.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import exit_codes, records
from trainerd.contract.compiled_code import why_unfit
from trainerd.contract.counted import counted
from trainerd.contract.environment import COMPILED_DIR
from trainerd.contract.failpoints import declare
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.process import boot_id, identify
from trainerd.contract.records import ExitRecord, RankExit, RanksRecord
from trainerd.contract.request_page import ask_to_stop
from trainerd.contract.session_record import session_files
from trainerd.contract.signals import signal_name
from trainerd.errors import SpaceError, UserError
from trainerd.shim import stop_policy
from trainerd.shim.attempt_sessions import RegisteredSessions
from trainerd.shim.background import BackgroundProcesses
from trainerd.shim.cgroup import AttemptCgroup
from trainerd.shim.compiled_check import check_compiled, is_same_boot
from trainerd.shim.environment_file import read_environment_file
from trainerd.shim.held_start import held_at_start
from trainerd.shim.kernel import followed_folder, wait_for_signal
from trainerd.shim.memory import is_oom_victim, oom_kills
from trainerd.shim.notes import note, timestamp
from trainerd.shim.persistence import RETRY_S, write_persistently
from trainerd.shim.rank_log import RankLog
from trainerd.shim.rank_processes import RankProcesses
from trainerd.shim.spawn import free_port, rank_start, spawn
from trainerd.shim.stop_policy import Command, EndCommand, Forward, Kill, KillReason, StopPolicy
from trainerd.shim.survivors import (
    SURVIVORS_LIMIT_S,
    SurvivorsEnded,
    attempt_mark,
    end_children,
    end_processes,
    find_descendants,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.contract.clock import Clock
    from trainerd.contract.process import ProcessIdentity
    from trainerd.shim.entry import Admission
    from trainerd.shim.spawn import RankStart
    from trainerd.shim.standby_process import StandbyProcess

LOG_CHECK_S: Final = 1.0
"""How often the sizes of the logs are looked at, in seconds, while none of them is large."""

FULL_LOG_CHECK_S: Final = 0.1
"""How often after one was full: a rank that filled one in a moment may fill the next."""

SESSION_LOOK_S: Final = 0.1
"""How often the sessions are looked at, in seconds, while they are to leave. Most are not children of the
shim, so their end is no signal to it."""

EXIT_RECORD_PATIENCE_S: Final = 24 * 3600.0
"""How long the shim tries to record the exit: a full disk must not turn a finished job into a lost one."""

_LOST = "the attempt is lost: processes that are left are found by mark and ended by the supervisor"

RANKS_STARTED = declare("ranks.started", f"ranks that run and no record of who they are; {_LOST}")
RANKS_RECORDED = declare("ranks.recorded", f"ranks that run, on record; {_LOST}")
RANKS_ENDED = declare("ranks.ended", f"no rank and no exit record; {_LOST}")
SURVIVORS_ENDED = declare(
    "survivors.ended", "no process, perhaps an empty cgroup, and no exit record; the attempt is lost"
)
EXIT_RECORDED = declare("exit.recorded", "a complete attempt: nothing is left to do")


class RankGroup:
    """Starts the ranks, minds them and concludes.

    Args:
        paths: Of the attempt.
        admission: Leave to start.
        clock: Measures the deadlines.
        ready_descriptor: Closed once the ranks are on record, which wakes the launcher.
        standby: Process that may become the rank; None to start it.
    """

    def __init__(
        self,
        paths: AttemptPaths,
        admission: Admission,
        clock: Clock,
        *,
        ready_descriptor: int | None,
        standby: StandbyProcess | None = None,
    ) -> None:
        self._standby = standby
        # What it records is found even if the state folder is moved meanwhile.
        self._own_folder = followed_folder(paths.root)
        self._paths = AttemptPaths(self._own_folder)
        self._root = paths.root
        self._launch = admission.launch
        self._admission = admission
        self._clock = clock
        self._ready_descriptor = ready_descriptor
        self._mark = attempt_mark(paths.root, admission.shim)
        self._processes = RankProcesses(RegisteredSessions(self._paths, self._mark, self._launch.nproc))
        self._exits: dict[int, RankExit] = {}
        self._ended_commands: dict[int, RankExit] = {}  # of ranks whose session still trains
        self._background: dict[int, BackgroundProcesses] = {}  # of ended commands, while no session is open
        self._background_killed = 0
        self._killed: dict[int, KillReason] = {}
        self._are_ranks_recorded = False
        self._oom_kills_before = oom_kills()
        self._cgroup = AttemptCgroup(())
        self._logs = [
            RankLog(Path(path), size_bytes_max=self._launch.log_bytes_max, copies=self._launch.log_copies)
            for path in self._launch.log_paths
        ]
        self._policy = StopPolicy(self._launch.grace_s, frozenset(range(self._launch.nproc)))

    def start_ranks(self) -> None:
        """Start them in order. One that cannot be started is an ending like any other, and the last one."""
        self._cgroup = self._make_cgroup()
        secrets, refusal = self._read_secrets()
        meets_here = self._launch.is_group and self._launch.place is None
        master_port = free_port() if meets_here else None
        held = held_at_start(self._launch.command, self._launch.workdir)
        for rank, log in enumerate(self._logs):
            log.say(f"--- attempt {self._launch.attempt} started {timestamp(self._clock.wall_s())} ---")
            if refusal is None:
                start = rank_start(
                    self._launch, secrets, held, rank=rank, mark=self._mark, master_port=master_port
                )
                if rank == 0:
                    self._check_compiled(start.environ, log)
                refusal = self._start_rank(rank, start, log)
            if refusal is not None:
                log.say(f"trainerd: rank {rank} was not started: {refusal}")
                self._rank_ended(RankExit(rank, spawn_error=refusal))
        RANKS_STARTED.hit()
        self._record_ranks()

    def _make_cgroup(self) -> AttemptCgroup:
        """Make the attempt's cgroup, or go on with the one in which its standby was born."""
        prepared = self._standby.cgroup if self._standby is not None else None
        if prepared is not None:
            if prepared.planned == self._admission.cgroups and prepared.become_the_attempts():
                return prepared.cgroup
            assert self._standby is not None, "it has a cgroup"
            self._standby.end()
            self._standby = None
            prepared.remove()
        return AttemptCgroup.make(self._admission.cgroups, self._launch.memory_bytes)

    def _read_secrets(self) -> tuple[dict[str, str], str | None]:
        if self._launch.env_file is None:
            return {}, None
        try:
            return read_environment_file(Path(self._launch.env_file)), None
        except UserError as error:
            return {}, str(error)

    def _check_compiled(self, environ: Mapping[str, str], log: RankLog) -> None:
        """Remove compiled code of the run that may be torn, or say why the run keeps none."""
        if COMPILED_DIR in environ:
            folder = Path(environ[COMPILED_DIR])
            if not folder.is_dir():
                return
            try:
                found = check_compiled(folder, is_same_boot=is_same_boot(self._root, boot_id()))
            except OSError as error:
                log.say(f"trainerd: compiled code that may be torn cannot be removed: {error}")
                return
            if found.removed:
                kept = counted(found.kept, "file")
                note(f"compiled code: {kept} kept, {found.removed} removed: not known to be whole")
        elif COMPILED_DIR in self._launch.env and (why := why_unfit(Path(self._launch.env[COMPILED_DIR]))):
            note(f"the run keeps no compiled code: {why}")

    def _start_rank(self, rank: int, start: RankStart, log: RankLog) -> str | None:
        standby, self._standby = self._standby, None
        pid: int | None = None
        try:
            if standby is not None:
                pid = standby.take(start, log_descriptor=log.descriptor, cgroup=self._cgroup)
            if pid is None:
                command, workdir, environ, held = start
                pid = spawn(command, workdir, environ, log.descriptor, cgroup=self._cgroup, held=held)
        except UserError as error:
            return str(error)
        identity = identify(pid)
        assert identity is not None, "a child that was not reaped is there"
        self._processes.started(rank, identity)
        return None

    def _record_ranks(self) -> None:
        """Try once. On a full disk the ranks go on, and the next look tries again."""
        try:
            records.write(self._paths.ranks, RanksRecord(self._processes.identities))
        except (SpaceError, OSError) as error:
            note(f"{self._paths.ranks.name} cannot be written yet: {error}")
            return
        self._are_ranks_recorded = True
        if self._ready_descriptor is not None:
            os.close(self._ready_descriptor)
            self._ready_descriptor = None
        RANKS_RECORDED.hit()

    def mind_ranks(self) -> None:
        """Pass on signals, keep deadlines, reap, rotate logs, until every rank has ended."""
        next_log_check_s = self._now_s() + LOG_CHECK_S
        while self._policy.living:
            signum = wait_for_signal(self._wait_s(next_log_check_s))
            self._reap()
            if signum is not None and signum != signal.SIGCHLD:
                note(f"received {signal_name(signum)}")
                self._obey(stop_policy.after_signal(self._policy, signum, self._now_s()))
            self._look_at_sessions()
            self._obey(stop_policy.after_time(self._policy, self._now_s()))
            if not self._are_ranks_recorded:
                self._record_ranks()
            if self._now_s() >= next_log_check_s:
                was_full = [log.rotate_if_large() for log in self._logs]
                soon_s = min([log.next_look_s(self._now_s()) for log in self._logs], default=LOG_CHECK_S)
                next_log_check_s = self._now_s() + (
                    min(FULL_LOG_CHECK_S, soon_s) if any(was_full) else soon_s
                )
        RANKS_ENDED.hit()

    def _wait_s(self, next_log_check_s: float) -> float:
        moments = [next_log_check_s]
        if self._policy.next_moment_s is not None:
            moments.append(self._policy.next_moment_s)
        if self._is_looking_at_sessions():
            moments.append(self._now_s() + SESSION_LOOK_S)
        if not self._are_ranks_recorded:
            moments.append(self._now_s() + RETRY_S)
        return min(moments) - self._now_s()

    def _obey(self, answer: tuple[StopPolicy, tuple[Command, ...]]) -> None:
        self._policy, commands = answer
        for command in commands:
            match command:
                case Forward(signum, ranks):
                    self._processes.forward(signum, ranks)
                    self._write_request(signum)
                case EndCommand(ranks):
                    note(f"ending the commands of ranks {sorted(ranks)}: their sessions have ended")
                    for rank in ranks:
                        self._processes.signal_command(rank, signal.SIGTERM)
                case Kill(reason, ranks):
                    self._kill(reason, ranks)

    def _kill(self, reason: KillReason, ranks: frozenset[int]) -> None:
        note(f"killing ranks {sorted(ranks)}: {reason}")
        for rank in ranks:
            self._killed.setdefault(rank, reason)
        self._processes.kill(ranks)
        for rank in ranks & self._ended_commands.keys():
            if rank in self._background:
                self._count_background(rank, self._background.pop(rank))
            self._rank_ended(self._ended_commands.pop(rank))

    def _write_request(self, signum: int) -> None:
        """Ask on the page as well, for a session that cannot hear the signal and for one that opens later."""
        try:
            ask_to_stop(self._paths.requests, signum)
        except (UserError, OSError) as error:
            note(f"the request cannot be written: {error}")

    def _is_looking_at_sessions(self) -> bool:
        return self._policy.are_told or bool(self._ended_commands)

    def _look_at_sessions(self) -> None:
        """See which sessions live, while that decides when a rank, or its command, ends."""
        if not self._is_looking_at_sessions():
            return
        sessions = self._processes.sessions()
        for rank in self._ended_commands.keys() - sessions.keys():
            # The end of one may have led to that of another.
            if rank in self._ended_commands and not self._is_background_waited_for(rank):
                self._rank_ended(self._ended_commands.pop(rank))
        for rank in self._background.keys() & sessions.keys():
            note(f"what the command of rank {rank} left in the background has opened a session")
            del self._background[rank]
        if self._policy.are_told:
            self._processes.tell_latecomers(signal.SIGTERM, sessions)
        self._obey(stop_policy.after_sessions(self._policy, frozenset(sessions), self._now_s()))

    def _reap(self) -> bool:
        """Collect every child that has ended, ranks and orphans; return whether any child is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            rank = self._processes.collected(pid)
            if rank is not None:
                ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
                began_s = self._admission.started_monotonic_s
                is_from_outside = ended_by == signal.SIGKILL and rank not in self._killed
                self._command_ended(
                    RankExit(
                        rank,
                        is_oom_victim=is_from_outside and is_oom_victim(pid, since_monotonic_s=began_s),
                        exit_code=None if ended_by else os.WEXITSTATUS(status),
                        signal=ended_by,
                        # One that left by itself just before the kill was not killed.
                        killed_by_shim=self._killed.get(rank) if ended_by == signal.SIGKILL else None,
                        rss_bytes_max=usage.ru_maxrss * 1024,
                    )
                )

    def _command_ended(self, ending: RankExit) -> None:
        """The command of a rank has ended. The rank has not, while a session of it trains."""
        trainers = self._processes.sessions().get(ending.rank) if ending.rank not in self._killed else None
        if not trainers:
            if not self._holds_for_background(ending):
                self._rank_ended(ending)
            return
        pids = ", ".join(str(identity.pid) for identity in trainers)
        note(f"the command of rank {ending.rank} ended: {_describe(ending)}; process {pids} trains on")
        self._ended_commands[ending.rank] = ending
        self._obey(stop_policy.after_command_ended(self._policy, self._now_s(), exit_code=ending.exit_code))

    def _holds_for_background(self, ending: RankExit) -> bool:
        """Keep a rank open whose command exited with 0 and left what may open the attempt's first session."""
        if ending.exit_code != exit_codes.FINISHED or ending.rank in self._killed:
            return False
        if session_files(self._paths):  # its trainer has been there: these are workers and the like
            return False
        rank = self._launch.first_rank + ending.rank if self._launch.nproc > 1 else None
        left = BackgroundProcesses(
            self._mark, rank, since_ticks=self._admission.shim.start_ticks, began_s=self._now_s()
        )
        living = left.living()
        if not living:
            return False
        pids = ", ".join(sorted(str(identity.pid) for identity in living))
        note(f"the command of rank {ending.rank} ended: exit code 0; waiting for a session in process {pids}")
        self._background[ending.rank] = left
        self._ended_commands[ending.rank] = ending
        return True

    def _is_background_waited_for(self, rank: int) -> bool:
        """Tell whether what a command left in the background may still open a session; count what may not."""
        left = self._background.get(rank)
        if left is None:
            return False
        if left.is_waited_for(self._now_s()):
            return True
        del self._background[rank]
        self._count_background(rank, left)
        return False

    def _count_background(self, rank: int, left: BackgroundProcesses) -> None:
        if living := left.living():
            self._background_killed += len(living)
            processes = counted(len(living), "background process", "background processes")
            note(f"ending {processes} of rank {rank}: none opened a session")

    def _rank_ended(self, ending: RankExit) -> None:
        self._exits[ending.rank] = ending
        note(f"rank {ending.rank} ended: {_describe(ending)}")
        self._obey(
            stop_policy.after_rank_ended(self._policy, ending.rank, self._now_s(), exit_code=ending.exit_code)
        )

    def conclude(self) -> None:
        """End what is left, then record the exit. Nothing is started after this."""
        in_cgroup = self._cgroup.end(self._reap, self._clock, limit_s=SURVIVORS_LIMIT_S)
        children = end_children(self._reap, self._clock, limit_s=SURVIVORS_LIMIT_S)
        ended = SurvivorsEnded(0, ())
        if self._cgroup.may_leak:  # else no process can be outside, and reading all of /proc takes its time
            ended = end_processes(self._find_strays, self._clock, limit_s=SURVIVORS_LIMIT_S)
        killed = len(in_cgroup | children) + ended.killed
        if killed:
            note(f"killed {counted(killed, 'descendant')} that had outlived their rank")
        if ended.left:
            note(f"these would not end: {[identity.pid for identity in ended.left]}")
        for log in self._logs:
            log.rotate_if_large()
            log.note_times()
        SURVIVORS_ENDED.hit()
        oom_kills, memory_bytes_max = self._oom_kills(), self._cgroup.memory_bytes_max()
        self._cgroup.remove()
        record = ExitRecord(
            ranks=tuple(self._exits[rank] for rank in sorted(self._exits)),
            started_wall_s=self._admission.started_wall_s,
            ended_wall_s=self._clock.wall_s(),
            duration_s=self._now_s(),
            boot_id=boot_id(),
            stop_requested_s=self._policy.stop_requested_s,
            survivors_killed=killed,
            background_killed=self._background_killed,
            oom_kills=oom_kills,
            memory_bytes_max=memory_bytes_max,
            memory_limit_bytes=self._cgroup.memory_limit_bytes,
        )
        write_persistently(self._paths.exit, record, self._clock, patience_s=EXIT_RECORD_PATIENCE_S)
        EXIT_RECORDED.hit()

    def _oom_kills(self) -> int:
        own = self._cgroup.oom_kills()
        if own is not None:
            return own
        now, before = oom_kills(), self._oom_kills_before
        return max(now - before, 0) if now is not None and before is not None else 0

    def _find_strays(self) -> tuple[ProcessIdentity, ...]:
        self._reap()
        return find_descendants(self._mark, since_ticks=self._admission.shim.start_ticks)

    def _now_s(self) -> float:
        return self._clock.monotonic_s() - self._admission.started_monotonic_s


def _describe(ending: RankExit) -> str:
    if ending.spawn_error is not None:
        return "could not be started"
    if ending.signal is not None:
        why = f", sent by the shim ({ending.killed_by_shim})" if ending.killed_by_shim else ""
        return f"signal {signal_name(ending.signal)}{why}"
    return f"exit code {ending.exit_code}"
