"""What an engine should do with a run next, from its folder and an exit code: pure.

For scripts that start a program themselves (srun, torchrun), whose exit code says little. Every combination
of records and exit codes has an answer; what is not proven is not called finished.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass, replace
from typing import Final

from trainerd.contract import exit_codes
from trainerd.contract.counted import counted
from trainerd.contract.records import ExitRecord, RankExit
from trainerd.contract.signals import SHELL_SIGNAL, STOP, signal_name
from trainerd.supervisor.machine.nodes_verdict import NodesSeen, judge_nodes
from trainerd.supervisor.machine.outcome import Evidence, Retry, judge

_SIGNALS: Final = frozenset(signal.valid_signals())


class RunWord(enum.Enum):
    """What is to be done with a run."""

    FINISHED = "finished"
    AGAIN = "again"
    NEVER = "never"
    FAILED = "failed"


EXIT_CODES: Final = {
    RunWord.FINISHED: exit_codes.FINISHED,
    RunWord.AGAIN: exit_codes.DRAINED,
    RunWord.NEVER: exit_codes.NEVER_RETRY,
    RunWord.FAILED: exit_codes.FAILED,
}


@dataclass(frozen=True)
class RunVerdict:
    """The answer, and why in one sentence."""

    word: RunWord
    reason: str

    @property
    def exit_code(self) -> int:
        """The same as an exit code."""
        return EXIT_CODES[self.word]


@dataclass(frozen=True)
class RunSeen:
    """What is known of a run.

    Attributes:
        code: Exit code of what was run; negative or above 128 for a signal; None if it is not known.
        is_finished: Whether there is a finished record.
        is_live: Whether a process of the newest attempt runs on this machine.
        is_supervised: Whether `trainerd` started the newest attempt, and has judged what it exits with.
        evidence: What the newest attempt left; None if what was run has made none.
        fruitless: How many attempts in a row failed without progress, up to the newest.
        budget: How many may.
        nodes: What the nodes have said, if this is the folder that several share; else None.
    """

    code: int | None = None
    is_finished: bool = False
    is_live: bool = False
    is_supervised: bool = False
    evidence: Evidence | None = None
    fruitless: int = 0
    budget: int = 5
    nodes: NodesSeen | None = None


def judge_run(seen: RunSeen, *, now_wall_s: float) -> RunVerdict:
    """Return what to do with a run.

    Args:
        seen: What is known of it.
        now_wall_s: The time, seconds since the epoch.
    """
    if seen.is_finished:
        return RunVerdict(RunWord.FINISHED, "its session reported the end")
    if seen.nodes is not None:
        code, reason = judge_nodes(seen.nodes, seen.code)
        return RunVerdict(_word(code), reason)
    if seen.is_live:
        return RunVerdict(RunWord.AGAIN, "its newest attempt still runs on this machine")
    if seen.code == exit_codes.NEVER_RETRY:
        return RunVerdict(RunWord.NEVER, "exit code 93: never retry")
    if seen.evidence is None:
        return _without_attempt(seen.code)
    if seen.is_supervised and seen.code in {exit_codes.FINISHED, exit_codes.DRAINED, exit_codes.FAILED}:
        return _as_supervised(seen.code)
    return _by_evidence(seen, seen.evidence, now_wall_s)


def _as_supervised(code: int) -> RunVerdict:
    return RunVerdict(
        _word(code), f"trainerd exec exited with {code}, and has judged the attempts of this run"
    )


def _word(code: int) -> RunWord:
    return next(word for word, each in EXIT_CODES.items() if each == code)


def _without_attempt(code: int | None) -> RunVerdict:
    """Judge what has opened no session, so that the code is all there is."""
    if code is None:
        return RunVerdict(RunWord.AGAIN, "nothing has been run here yet")
    number = signal_of(code)
    if code == exit_codes.DRAINED:
        return RunVerdict(RunWord.AGAIN, "exit code 85, before a session was opened")
    if code == exit_codes.FINISHED:
        reason = "exit code 0, and no session was opened in this run folder: nothing proves that it finished"
        return RunVerdict(RunWord.FAILED, reason)
    if code in exit_codes.CANNOT_START:
        why = "a usage error" if code == exit_codes.USAGE else "the command cannot be started"
        return RunVerdict(RunWord.NEVER, f"exit code {code} before a session was opened: {why}")
    if number in STOP:
        reason = f"{signal_name(number)} ended it before a session was opened"
        return RunVerdict(RunWord.AGAIN, reason)
    what = f"exit code {code}" if number is None else signal_name(number)
    return RunVerdict(RunWord.FAILED, f"{what} before a session was opened")


def signal_of(code: int) -> int | None:
    """Return the signal that an exit code stands for, None if it stands for none."""
    number = -code if code < 0 else code - SHELL_SIGNAL
    return number if number in _SIGNALS else None


def _by_evidence(seen: RunSeen, evidence: Evidence, now_wall_s: float) -> RunVerdict:
    if evidence.exit is None:
        code = seen.code if seen.code is not None else _said_code(evidence)
        evidence = replace(evidence, exit=_exit(code)) if code is not None else evidence
    outcome = judge(evidence, now_wall_s=now_wall_s)
    match outcome.retry:
        case Retry.NOTHING_LEFT:
            # Its own ranks said so, or the code alone does, which is no proof here.
            is_said = any(said is not None and said.kind == "finished" for said in evidence.outcomes)
            return RunVerdict(RunWord.FINISHED if is_said else RunWord.FAILED, outcome.reason)
        case Retry.NEVER:
            return RunVerdict(RunWord.NEVER, outcome.reason)
        case Retry.ON_REQUEST:
            return RunVerdict(RunWord.FAILED, outcome.reason)
        case Retry.AT_ONCE | Retry.AT_ONCE_IF_MOVED:
            return RunVerdict(RunWord.AGAIN, outcome.reason)
        case _:
            return _within_budget(seen, outcome.reason)


def _within_budget(seen: RunSeen, reason: str) -> RunVerdict:
    if seen.fruitless >= seen.budget:
        attempts = counted(seen.fruitless, "attempt", "attempts in a row")
        return RunVerdict(RunWord.FAILED, f"{reason}; {attempts} made no progress (budget {seen.budget})")
    return RunVerdict(RunWord.AGAIN, reason)


def _said_code(evidence: Evidence) -> int | None:
    """Return the exit code that fits what the ranks said, None if they said nothing."""
    kinds = {said.kind for said in evidence.outcomes if said is not None}
    if not kinds:
        return None
    if kinds <= {"finished"}:
        return exit_codes.FINISHED
    return exit_codes.DRAINED if kinds <= {"finished", "drained"} else exit_codes.FAILED


def _exit(code: int) -> ExitRecord:
    number = signal_of(code)
    rank = RankExit(0, exit_code=code) if number is None else RankExit(0, signal=number)
    return ExitRecord((rank,), 0.0, 0.0, 0.0, "")
