"""How an attempt ended, judged from evidence alone: pure.

The order of the questions is the order of trust: a restart of the machine explains everything; then what the
ranks say of themselves, then what the shim saw, and the tail of the log only for programs that died before
they could say anything. An ending that nothing explains is a crash, never a success.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import signal
from dataclasses import dataclass
from typing import Final, Literal

from trainerd.contract import exit_codes
from trainerd.contract.counted import counted
from trainerd.contract.policy import Completion, OnNonfiniteLoss
from trainerd.contract.records import ExitRecord, OutcomeRecord, RankExit, StallRecord
from trainerd.contract.signals import SHELL_SIGNAL, STOP, signal_name
from trainerd.errors import RankLostError
from trainerd.supervisor.machine.interpreter import Interpreter, without_module

USAGE_ERROR_WITHIN_S: Final = 30.0
"""An exit with code 2 later than this, in seconds, is not a usage error: those show at once."""


class OutcomeKind(enum.Enum):
    """What an ending is called, in logs, API and CLI."""

    FINISHED = "finished"
    DRAINED = "drained"
    STOPPED = "stopped"
    CRASHED = "crashed"
    KILLED = "killed"
    OUT_OF_MEMORY = "out-of-memory"
    STALLED = "stalled"
    LOST = "lost"
    NON_FINITE_LOSS = "non-finite-loss"
    REJECTED = "rejected"


class Retry(enum.Enum):
    """What an ending asks for, unless a request asks for something else."""

    NOTHING_LEFT = "nothing is left to do"
    AT_ONCE = "again at once"
    AT_ONCE_IF_MOVED = "again at once if it made progress"
    AFTER_BACKOFF = "again after a wait"
    FROM_THE_CHECKPOINT_BEFORE = "again after a wait, from the checkpoint before the newest"
    WHEN_THERE_IS_ROOM = "again when there is room on the disk"
    ON_REQUEST = "not again before a request"
    NEVER = "not again unless something changes"


@dataclass(frozen=True)
class Outcome:
    """The record of one ending.

    Attributes:
        kind: What it is called.
        reason: One sentence.
        retry: What it asks for.
        evidence: What the judgement rests on, a line each.
        step: Last step it is known to have finished, None before the first.
        checkpoint: Newest valid checkpoint afterwards.
        ended_wall_s: When, seconds since the epoch.
        failure: What tells this failure from others; empty if it says nothing about the job.
        resumed_from: Checkpoint that the attempt had gone on from.
        checkpoint_before: Newest checkpoint that is older than `checkpoint`.
        saved_at_end: `checkpoint`, if the attempt saved it from memory because it was about to end.
        exit_code: Exit code of the rank that decided; None if a signal ended it or nothing is known of it.
        signal: Name of the signal that ended that rank, None if none did.
    """

    kind: OutcomeKind
    reason: str
    retry: Retry
    evidence: tuple[str, ...] = ()
    step: int | None = None
    checkpoint: str | None = None
    ended_wall_s: float = 0.0
    failure: str = ""
    resumed_from: str | None = None
    checkpoint_before: str | None = None
    saved_at_end: str | None = None
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True)
class Evidence:
    """All that is known of an ending.

    Attributes:
        attempt: Number of the attempt.
        exit: What the shim recorded; None if it was lost.
        outcomes: What each rank said, by rank; None where it said nothing.
        lost_because: Why there is no exit record.
        is_after_reboot: Whether the machine was restarted since, or it is another machine.
        has_session: Whether a rank used the training API in this attempt.
        has_trained_before: Whether a rank used it in an earlier attempt of this run.
        has_stepped: Whether this attempt finished a step.
        step: Last step known to be finished, over all attempts; None before the first.
        checkpoint: Name of the newest checkpoint that verifies.
        checkpoint_step: Its step.
        is_checkpoint_new: Whether this attempt made it.
        checkpoint_before: Name of the newest checkpoint that is older.
        saved_at_end: Name of the newest, if this attempt saved it from memory because it was about to end.
        resumed_from: Name of the checkpoint that this attempt had gone on from.
        on_nonfinite_loss: What the spec wants then.
        completion: When a program without a session has done its work, as the spec says.
        is_wrapped: Whether a process that trained was not its rank's command, but below it.
        chains: How the processes that trained were started, a line each.
        is_finish_recorded: Whether a finished record speaks of the spec under which this attempt ran.
        stall: That the supervisor saw it stand still and ended it for that; None if it did not.
        log_tail: Last lines that rank 0 wrote in this attempt.
        interpreter: What ran the command; None if that is no Python, as far as can be told.
        trouble: What could not be read, a line each.
        is_of_several_nodes: Whether ranks of the attempt run on other machines too.
    """

    attempt: int
    exit: ExitRecord | None
    outcomes: tuple[OutcomeRecord | None, ...] = ()
    lost_because: str = ""
    is_after_reboot: bool = False
    has_session: bool = False
    has_trained_before: bool = False
    has_stepped: bool = False
    step: int | None = None
    checkpoint: str | None = None
    checkpoint_step: int | None = None
    is_checkpoint_new: bool = False
    checkpoint_before: str | None = None
    saved_at_end: str | None = None
    resumed_from: str | None = None
    on_nonfinite_loss: OnNonfiniteLoss = "ignore"
    completion: Completion = "exit-zero"
    is_wrapped: bool = False
    chains: tuple[str, ...] = ()
    is_finish_recorded: bool = False
    stall: StallRecord | None = None
    log_tail: tuple[str, ...] = ()
    interpreter: Interpreter | None = None
    trouble: tuple[str, ...] = ()
    is_of_several_nodes: bool = False


def judge(evidence: Evidence, *, now_wall_s: float) -> Outcome:
    """Return how the attempt ended. `now_wall_s` dates an ending that no process saw."""
    kind, retry, reason = _verdict(evidence)
    decisive = _decisive(evidence)
    return Outcome(
        kind=kind,
        reason=reason,
        retry=retry,
        evidence=evidence_lines(evidence),
        step=evidence.step,
        checkpoint=evidence.checkpoint,
        ended_wall_s=evidence.exit.ended_wall_s if evidence.exit else now_wall_s,
        failure=_failure(evidence, kind, retry),
        resumed_from=evidence.resumed_from,
        checkpoint_before=evidence.checkpoint_before,
        saved_at_end=evidence.saved_at_end,
        exit_code=decisive.exit_code if decisive is not None else None,
        signal=signal_name(decisive.signal) if decisive is not None and decisive.signal else None,
    )


def _decisive(evidence: Evidence) -> RankExit | None:
    """Return the rank whose end decided: the first that ended badly, else the first one."""
    if evidence.exit is None:
        return None
    return _culprit(evidence, evidence.exit) or next(iter(evidence.exit.ranks), None)


_OF_THE_JOB: Final = frozenset(
    {
        OutcomeKind.CRASHED,
        OutcomeKind.OUT_OF_MEMORY,
        OutcomeKind.STALLED,
        OutcomeKind.NON_FINITE_LOSS,
    }
)


def _failure(evidence: Evidence, kind: OutcomeKind, retry: Retry) -> str:
    """Return what tells this failure from others, without what differs each time, such as an address."""
    if kind not in _OF_THE_JOB or retry is Retry.WHEN_THERE_IS_ROOM or evidence.exit is None:
        return ""
    culprit, raised = _culprit(evidence, evidence.exit), _raised(evidence)
    if kind is OutcomeKind.CRASHED and culprit is None and raised is not None:
        return f"{kind.value}: {_error_text(raised[1]).partition(':')[0]}"  # the command exited with 0
    if kind is not OutcomeKind.CRASHED or culprit is None:
        return kind.value
    said = _error_of(evidence, culprit.rank)
    if said is not None:
        return f"{kind.value}: {said.partition(':')[0]}"
    if culprit.signal is not None:
        return f"{kind.value}: {signal_name(culprit.signal)}"
    return f"{kind.value}: {culprit.exit_code}"


_RANK_LOST: Final = f"{RankLostError.__module__}.{RankLostError.__qualname__}"
_Verdict = tuple[OutcomeKind, Retry, str]


def _verdict(evidence: Evidence) -> _Verdict:
    if evidence.exit is None:
        retry = Retry.AT_ONCE if evidence.is_after_reboot else Retry.AFTER_BACKOFF
        return OutcomeKind.LOST, retry, evidence.lost_because or "its end was not seen"
    said = _from_the_ranks(evidence)
    if said is not None:
        return said
    if evidence.stall is not None and any(rank.killed_by_shim == "asked" for rank in evidence.exit.ranks):
        return _stalled(evidence, evidence.stall)
    if evidence.is_finish_recorded and all(rank.exit_code == 0 for rank in evidence.exit.ranks):
        return OutcomeKind.FINISHED, Retry.NOTHING_LEFT, "its session reported the end"
    culprit = _culprit(evidence, evidence.exit)
    if culprit is not None and evidence.is_wrapped and _all_said(evidence, "finished"):
        ended = _how_it_ended(culprit)
        return (
            OutcomeKind.FINISHED,
            Retry.NOTHING_LEFT,
            f"its session reported the end; its command {ended} after that",
        )
    if culprit is not None and _all_said(evidence, "drained"):
        return _drained(evidence)  # a launcher such as torchrun makes 1 of the 85 of its ranks
    if evidence.is_of_several_nodes and (left_alone := _left_alone(evidence, evidence.exit)) is not None:
        # The node where it began charges its own budget; this one has only to meet the others again.
        reason = f"rank {left_alone} has lost the other nodes: {_error_of(evidence, left_alone)}"
        return OutcomeKind.LOST, Retry.AT_ONCE, reason
    if culprit is not None:
        return _from_the_culprit(evidence, culprit)
    if any(rank.exit_code == exit_codes.DRAINED for rank in evidence.exit.ranks):
        return _drained(evidence)
    return _all_exited_zero(evidence, evidence.exit)


def _from_the_ranks(evidence: Evidence) -> _Verdict | None:
    """Judge by what the ranks said of themselves, where that settles it."""
    for rank, record in enumerate(evidence.outcomes):
        if record is None:
            continue
        named = f"rank {rank}: {_error_text(record)}"
        if record.kind == "mismatch":
            return OutcomeKind.REJECTED, Retry.NEVER, f"the checkpoint does not fit the program: {named}"
        if record.kind == "out-of-memory":
            return OutcomeKind.OUT_OF_MEMORY, Retry.AFTER_BACKOFF, f"out of memory: {named}"
        if record.kind == "nonfinite-loss":
            return _nonfinite(evidence, named)
        if record.kind == "fenced":
            return OutcomeKind.REJECTED, Retry.ON_REQUEST, f"another attempt trains this run: {named}"
        if record.kind == "no-space":
            return OutcomeKind.CRASHED, Retry.WHEN_THERE_IS_ROOM, f"no room on the disk: {named}"
    return None


def _all_said(evidence: Evidence, kind: Literal["drained", "finished"]) -> bool:
    """Tell whether every rank of which anything is known recorded that it drained, or finished."""
    return bool(evidence.outcomes) and all(
        said is not None and said.kind == kind for said in evidence.outcomes
    )


def _raised(evidence: Evidence) -> tuple[int, OutcomeRecord] | None:
    """Return the first rank that recorded an exception, and the record. An exit is none."""
    for rank, said in enumerate(evidence.outcomes):
        if said is not None and said.kind == "exception" and said.error_type != "SystemExit":
            return rank, said
    return None


def _how_it_ended(rank: RankExit) -> str:
    if rank.signal is not None:
        return f"was ended by {signal_name(rank.signal)}"
    return f"exited with {rank.exit_code}"


def _nonfinite(evidence: Evidence, named: str) -> _Verdict:
    kind = OutcomeKind.NON_FINITE_LOSS
    if evidence.on_nonfinite_loss == "rollback":
        return kind, Retry.FROM_THE_CHECKPOINT_BEFORE, f"{named} (on_nonfinite_loss: rollback)"
    return kind, Retry.ON_REQUEST, f"{named} (on_nonfinite_loss: {evidence.on_nonfinite_loss})"


def _stalled(evidence: Evidence, stall: StallRecord) -> _Verdict:
    silence = f"nothing moved for {stall.silence_s:.0f} s while in phase {stall.doing}"
    if evidence.is_finish_recorded:
        return OutcomeKind.FINISHED, Retry.NOTHING_LEFT, f"its session reported the end; then {silence}"
    reason = f"{silence} (limit {stall.limit_s:.0f} s); its stacks are in its log"
    return OutcomeKind.STALLED, Retry.AFTER_BACKOFF, reason


def _culprit(evidence: Evidence, record: ExitRecord) -> RankExit | None:
    """Return the rank whose bad end came first: not one that ended because a peer had died."""
    bad = [rank for rank in record.ranks if not _ended_well(rank)]
    return next(iter(_ended_by_themselves(evidence, bad) or bad), None)


def _ended_by_themselves(evidence: Evidence, bad: list[RankExit]) -> list[RankExit]:
    return [
        rank
        for rank in bad
        if rank.killed_by_shim != "peer"
        and rank.signal != signal.SIGTERM
        and not _has_lost_a_peer(evidence, rank.rank)
    ]


def _left_alone(evidence: Evidence, record: ExitRecord) -> int | None:
    """Return a rank that lost a peer, if no rank of this node ended before that by itself; else None."""
    bad = [rank for rank in record.ranks if not _ended_well(rank)]
    if _ended_by_themselves(evidence, bad):
        return None
    return next((rank.rank for rank in bad if _has_lost_a_peer(evidence, rank.rank)), None)


def _has_lost_a_peer(evidence: Evidence, rank: int) -> bool:
    said = evidence.outcomes[rank] if rank < len(evidence.outcomes) else None
    return said is not None and said.error_type == _RANK_LOST


def _ended_well(rank: RankExit) -> bool:
    return rank.exit_code in {exit_codes.FINISHED, exit_codes.DRAINED}


def _from_the_culprit(evidence: Evidence, rank: RankExit) -> _Verdict:
    assert evidence.exit is not None
    who = f"rank {rank.rank}"
    if rank.spawn_error is not None:
        problem = rank.spawn_error.partition("\n")[0]
        is_passing = any(os.strerror(number) in rank.spawn_error for number in (errno.EAGAIN, errno.ENOMEM))
        if is_passing:
            return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, f"{who} was not started: {problem}"
        return OutcomeKind.REJECTED, Retry.NEVER, f"{who} cannot be started: {problem}"
    if rank.signal is not None:
        return _ended_by_signal(evidence, rank, who)
    left = _left_as_asked(evidence, evidence.exit, rank)
    if left is not None:
        return left
    if rank.exit_code == exit_codes.NEVER_RETRY:
        return OutcomeKind.REJECTED, Retry.NEVER, f"{who} exited with 93: never retry"
    if not evidence.has_stepped:
        refusal = _refusal(evidence, rank)
        if refusal is not None:
            return OutcomeKind.REJECTED, Retry.NEVER, f"{who} {refusal}"
    by_kernel = _killed_for_memory(evidence.exit, rank) if evidence.is_wrapped else None
    if by_kernel is not None:
        reason = f"a process below {who} was killed by the kernel for lack of memory: {by_kernel}"
        return OutcomeKind.OUT_OF_MEMORY, Retry.AFTER_BACKOFF, reason
    message = _error_of(evidence, rank.rank)
    is_worker_killed = message is not None and bool(_WORKER_KILLED.search(message))
    if message is not None and (
        _OUT_OF_MEMORY.search(message) or (is_worker_killed and evidence.exit.oom_kills)
    ):
        return OutcomeKind.OUT_OF_MEMORY, Retry.AFTER_BACKOFF, f"{who} ran out of memory: {message}"
    said = f": {message}" if message else ""
    return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, f"{who} exited with {rank.exit_code}{said}"


def _ended_by_signal(evidence: Evidence, rank: RankExit, who: str) -> _Verdict:
    assert evidence.exit is not None
    name = signal_name(rank.signal or 0)
    if rank.killed_by_shim == "grace":
        return OutcomeKind.KILLED, Retry.AFTER_BACKOFF, f"{who} did not leave within the grace period"
    if rank.killed_by_shim == "asked":
        return OutcomeKind.KILLED, Retry.AFTER_BACKOFF, f"{who} was killed because that was asked for"
    was_asked = evidence.exit.stop_requested_s is not None
    if was_asked and rank.signal in STOP:
        saved = ", without a checkpoint of that moment" if evidence.has_session else f"; {_NO_SESSION}"
        reason = f"{who} left on {name}, as asked{saved}"
        return OutcomeKind.STOPPED, Retry.AFTER_BACKOFF, reason
    by_kernel = _killed_for_memory(evidence.exit, rank)
    if by_kernel is not None:
        reason = f"{who} was killed by the kernel for lack of memory: {by_kernel}"
        return OutcomeKind.OUT_OF_MEMORY, Retry.AFTER_BACKOFF, reason
    if rank.signal == signal.SIGABRT and any(_BAD_ALLOC in line for line in evidence.log_tail):
        return OutcomeKind.OUT_OF_MEMORY, Retry.AFTER_BACKOFF, f"{who} ran out of memory: {_BAD_ALLOC}"
    if rank.signal in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
        if _has_raised(evidence, rank.rank):  # what came later, while it left, is not what it died of
            raised = _error_of(evidence, rank.rank)
            return (
                OutcomeKind.CRASHED,
                Retry.AFTER_BACKOFF,
                f"{who} raised {raised}, and got {name} as it left",
            )
        return OutcomeKind.KILLED, Retry.AFTER_BACKOFF, f"{who} was killed by {name} from outside"
    return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, f"{who} died of {name}"


def _left_as_asked(evidence: Evidence, record: ExitRecord, rank: RankExit) -> _Verdict | None:
    """Judge a bad exit code that comes of a request to stop, None if it does not."""
    if record.stop_requested_s is None or rank.exit_code is None:
        return None
    who, number = f"rank {rank.rank}", rank.exit_code - SHELL_SIGNAL
    if number in STOP and not evidence.has_session:
        reason = f"{who} left on {signal_name(number)}, as asked: exit code {rank.exit_code}; {_NO_SESSION}"
        return OutcomeKind.STOPPED, Retry.AFTER_BACKOFF, reason
    # Ranks that were all asked to leave do so at different moments: one that waits for another may raise.
    bad = [each.rank for each in record.ranks if not _ended_well(each)]
    is_of_several = len(record.ranks) > 1 and all(_has_raised(evidence, each) for each in bad)
    if rank.exit_code == exit_codes.FAILED and is_of_several:
        origin = f"it goes on from {evidence.checkpoint}" if evidence.checkpoint else "nothing was saved yet"
        reason = f"{who} raised {_error_of(evidence, rank.rank)} while the ranks were asked to stop; {origin}"
        return OutcomeKind.STOPPED, Retry.AT_ONCE, reason
    return None


def _has_raised(evidence: Evidence, rank: int) -> bool:
    said = evidence.outcomes[rank] if rank < len(evidence.outcomes) else None
    by_itself = {None, "KeyboardInterrupt"}  # which is what the signal raised
    return said is not None and said.kind == "exception" and said.error_type not in by_itself


def _killed_for_memory(record: ExitRecord, rank: RankExit) -> str | None:
    """Return what says that a rank or its worker was killed for lack of memory, None if nothing does."""
    if rank.is_oom_victim:
        return "its log says so"
    if record.oom_kills and signal.SIGKILL in {rank.signal, (rank.exit_code or 0) - SHELL_SIGNAL}:
        limit = record.memory_limit_bytes
        at_limit = "" if limit is None else f", at a limit of {_gib(limit)}"
        return f"its cgroup counted {record.oom_kills} such kills meanwhile{at_limit}"
    return None


def _refusal(evidence: Evidence, rank: RankExit) -> str | None:
    """Return why this program cannot run at all, None if it may."""
    assert evidence.exit is not None
    if rank.exit_code == exit_codes.NOT_FOUND:
        return "exited with 127: command not found"
    if rank.exit_code == exit_codes.NOT_EXECUTABLE:
        return "exited with 126: command cannot be executed"
    if rank.exit_code == exit_codes.USAGE and evidence.exit.duration_s <= USAGE_ERROR_WITHIN_S:
        last = _last_words(evidence)
        return f"exited with 2, a usage error{f': {last}' if last else ''}"
    message = _error_of(evidence, rank.rank)
    if rank.exit_code != exit_codes.FAILED:
        return None
    if message is not None and _CANNOT_RUN.match(message):
        return f"cannot run: {message}{_with(evidence, message)}"
    missing = without_module(_last_words(evidence)) if message is None else None
    return f"cannot run: {missing}{_with(evidence, missing)}" if missing is not None else None


def _with(evidence: Evidence, message: str) -> str:
    """Return which interpreter it was, and where another is named, for a program that cannot run."""
    return f"; {evidence.interpreter.advice(message)}" if evidence.interpreter is not None else ""


def _drained(evidence: Evidence) -> _Verdict:
    if evidence.is_checkpoint_new:
        reason = f"it left after saving checkpoint {evidence.checkpoint}"
        return OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED, reason
    if evidence.has_session and evidence.step in {None, evidence.checkpoint_step}:
        where = f"step {evidence.step} was checkpointed before" if evidence.step else "no step had been made"
        return OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED, f"it stopped and lost nothing: {where}"
    reason = "it left as if drained, which promises a checkpoint, and there is no new one that verifies"
    return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, reason


def _all_exited_zero(evidence: Evidence, record: ExitRecord) -> _Verdict:
    if any(said is not None and said.kind == "drained" for said in evidence.outcomes):
        return _drained(evidence)
    if _all_said(evidence, "finished"):
        return OutcomeKind.FINISHED, Retry.NOTHING_LEFT, "its session reported the end"
    raised = _raised(evidence)
    if raised is not None:
        reason = f"rank {raised[0]} raised {_error_text(raised[1])}, and its command exited with 0"
        return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, reason
    if record.stop_requested_s is None:
        return _ended_by_itself(evidence)
    if not evidence.has_session:
        reason = "it left when asked, and a plain command cannot prove that it was done"
        return OutcomeKind.STOPPED, Retry.AT_ONCE_IF_MOVED, reason
    if evidence.is_checkpoint_new and evidence.step == evidence.checkpoint_step:
        reason = (
            f"it exited with 0 when asked to stop, without a finished record, and left {evidence.checkpoint}"
        )
        return OutcomeKind.DRAINED, Retry.AT_ONCE_IF_MOVED, reason
    reason = "it exited with 0 when asked to stop, without a finished record: that is not completion"
    return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, reason


def _ended_by_itself(evidence: Evidence) -> _Verdict:
    """Judge ranks that all exited with 0, unasked, and of which not all said that they finished."""
    if evidence.has_session:
        where = f"at step {evidence.step}" if evidence.step is not None else "before its first step"
        reason = f"it exited with 0 {where} without finishing: its session was left in the middle"
        return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, reason
    if evidence.has_trained_before or evidence.checkpoint is not None:
        # A pipe or a script hides the exit code of a program that died before it opened its session.
        reason = "it exited with 0 without opening a session, and this run has trained and has not finished"
        return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, reason
    if evidence.exit is not None and evidence.exit.background_killed:
        left = counted(
            evidence.exit.background_killed,
            "process in the background, which opened no session in time and was ended: have the command "
            "wait for it",
            "processes in the background, which opened no session in time and were ended: have the command "
            "wait for them",
        )
        reason = f"it exited with 0 and left {left}"
        return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, reason
    if evidence.completion == "record":
        reason = "it exited with 0 without a finished record (completion: record)"
        return OutcomeKind.CRASHED, Retry.AFTER_BACKOFF, reason
    return OutcomeKind.FINISHED, Retry.NOTHING_LEFT, "it exited with 0"


_CANNOT_RUN: Final = re.compile(
    r"(?:\w+\.)*(?:SyntaxError|IndentationError|TabError|ImportError|ModuleNotFoundError)\b"
)
_OUT_OF_MEMORY: Final = re.compile(
    r"^(?:\w+\.)*(?:\w*MemoryError|OutOfMemoryError)\b|CUDA out of memory|CUDA error: out of memory"
    r"|DefaultCPUAllocator: |CUBLAS_STATUS_ALLOC_FAILED|[Cc](?:an't|annot) allocate memory"
)
_NO_SESSION: Final = "it opened no session, so trainerd has saved nothing of it"
_WORKER_KILLED: Final = re.compile(r"DataLoader worker .*killed by signal: Killed")
_BAD_ALLOC: Final = "std::bad_alloc"
_EXCEPTION: Final = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b(?::|$)")


def _error_of(evidence: Evidence, rank: int) -> str | None:
    """Return what a rank died of: from its outcome record, else from the end of its traceback."""
    record = evidence.outcomes[rank] if rank < len(evidence.outcomes) else None
    if record is not None and record.error_type is not None:
        return _error_text(record)
    found = [line for line in evidence.log_tail if _EXCEPTION.match(line)]
    return found[-1] if found else None


def _error_text(record: OutcomeRecord) -> str:
    first_line = (record.error_message or "").partition("\n")[0]
    return (
        f"{record.error_type or record.kind}: {first_line}"
        if first_line
        else record.error_type or record.kind
    )


def _last_words(evidence: Evidence) -> str:
    lines = [line.strip() for line in evidence.log_tail if line.strip()]
    return lines[-1] if lines else ""


_TAIL_LINES: Final = 3


def evidence_lines(evidence: Evidence) -> tuple[str, ...]:
    """Return the evidence as people read it, a line each."""
    lines = []
    if evidence.exit is not None:
        lines += [_rank_line(rank) for rank in evidence.exit.ranks]
        lines += evidence.chains if evidence.is_wrapped else ()
        if evidence.exit.stop_requested_s is not None:
            lines.append(f"asked to stop {evidence.exit.stop_requested_s:.1f} s after its start")
        lines.append(f"ran for {evidence.exit.duration_s:.1f} s")
        if evidence.exit.oom_kills:
            processes = counted(evidence.exit.oom_kills, "process", "processes")
            lines.append(f"the kernel ended {processes} of its cgroup for lack of memory")
        if evidence.exit.memory_bytes_max is not None:
            limit = evidence.exit.memory_limit_bytes
            allowed = "" if limit is None else f" of {_gib(limit)}"
            lines.append(f"memory at its highest: {_gib(evidence.exit.memory_bytes_max)}{allowed}")
        if evidence.exit.survivors_killed:
            survivors = evidence.exit.survivors_killed
            ended = counted(survivors, "left-over process was", "left-over processes were")
            lines.append(f"{ended} ended")
    elif evidence.lost_because:
        lines.append(evidence.lost_because)
    for rank, record in enumerate(evidence.outcomes):
        if record is not None:
            lines.append(f"rank {rank} said: {_error_text(record)}")
            lines += [f"    {detail}" for detail in record.detail]
    if evidence.stall is not None:
        lines += evidence.stall.detail
    lines.append("no step was finished" if evidence.step is None else f"last finished step: {evidence.step}")
    if evidence.checkpoint is not None:
        origin = "made by this attempt" if evidence.is_checkpoint_new else "made before"
        lines.append(f"newest valid checkpoint: {evidence.checkpoint}, {origin}")
    elif evidence.has_session:
        lines.append("no valid checkpoint")
    if not any(evidence.outcomes) and evidence.stall is None:
        tail = [line for line in evidence.log_tail if line.strip()][-_TAIL_LINES:]
        lines += [f"log: {line}" for line in tail]
    return (*lines, *evidence.trouble)


def _gib(count: int) -> str:
    return f"{count / 1024**3:.2f} GiB"


def _rank_line(rank: RankExit) -> str:
    if rank.spawn_error is not None:
        return f"rank {rank.rank}: not started: {rank.spawn_error}"
    if rank.signal is not None:
        by = f", sent by the shim ({rank.killed_by_shim})" if rank.killed_by_shim else ""
        return f"rank {rank.rank}: {signal_name(rank.signal)}{by}"
    return f"rank {rank.rank}: exit code {rank.exit_code}"
