"""How a run leaves its process: drained, finished or failed, from the main thread or another thread.

Invariants:
    What is saved on the way out was captured at a boundary: an error may have come in the middle of a step.
    The other ranks are told before this one is gone.
    The outcome is on record before the process ends.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NoReturn

from trainerd.contract import records
from trainerd.contract.exit_codes import DRAINED, FAILED
from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import Phase
from trainerd.contract.records import FinishedRecord
from trainerd.contract.safe_text import safe_line
from trainerd.errors import FencedError, NonFiniteLossError, RankLostError, SpaceError, UserError
from trainerd.training.interruption import leaving
from trainerd.training.interruption.departure import DEPARTURE, leave_limit_s
from trainerd.training.interruption.last_words import LastWords

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.distributed.agreement import Agreement
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.engine.arriving_rows import ArrivingRows
    from trainerd.training.engine.position import Position
    from trainerd.training.engine.resume_evidence import ResumeEvidence
    from trainerd.training.engine.run_resume import RunResume
    from trainerd.training.engine.run_saves import RunSaves
    from trainerd.training.engine.supervisor_link import SupervisorLink
    from trainerd.training.interruption.drain_flag import DrainFlag
    from trainerd.training.settings import Settings

COMPLETED = declare(
    "training.completed", "the final checkpoint; the run completes at once when it is resumed"
)

BETWEEN_SAVES_LIMIT_S: Final = 2.0
"""How long a thread that would save what is staged waits for the main thread to be between two saves, in
seconds."""
FLUSH_ANSWER_LIMIT_S: Final = 10.0
"""How long ranks that are out of time wait to hear what the others hold, in seconds."""
LAST_WORDS_HURRIED_S: Final = 1.0
"""How long the script's last words may take where there is no time, in seconds."""
MIRROR_LIMIT_S: Final = 60.0
"""How long a drain without a known grace period waits for the mirror, in seconds."""
MIRROR_RESERVE_S: Final = 3.0
"""So much of the grace period is left to the cleanup of the script, in seconds."""
SIGNAL_LIMIT_S: Final = 0.1
"""How long a signal is waited for that would explain an exception, in seconds."""
ERROR_CHARACTERS_MAX: Final = 200
"""Longest message of an exception in the reason of a drain, in characters."""

_NOT_SAVED: Final = (UserError, NonFiniteLossError, SpaceError, FencedError)
"""Errors after which nothing is saved and no drain is answered: the next attempt would meet them again, or
what is in memory is not to be trusted."""

_EXITING: Final = f"exiting {DRAINED}"

_COMES_OF_SIGNAL: Final = (KeyboardInterrupt, SystemExit, OSError)
"""What a handler of the script's own raises, or a pipe whose reader got the same signal."""


class RunExit:
    """The ways out of one attempt.

    Attributes:
        is_leaving: Whether the main thread is on its way out.
        is_left: Whether the drain is done: all that is left to do is to end.
        last_words: What the script does when it leaves.
        ends_with: Makes what is raised to leave, from the reason, where an engine holds the process.
            None: the process ends.
    """

    def __init__(
        self,
        settings: Settings,
        position: Position,
        saves: RunSaves,
        resume: RunResume,
        *,
        evidence: ResumeEvidence,
        rows: ArrivingRows,
        link: SupervisorLink,
        flag: DrainFlag,
        agreement: Agreement,
        ranks: Ranks | None,
    ) -> None:
        self.is_leaving = self.is_left = False
        self.last_words = LastWords(leaving.say_last)
        self.ends_with: Callable[[str], BaseException] | None = None
        self._end: BaseException | None = None  # what is raised to leave
        self._settings = settings
        self._position = position
        self._saves = saves
        self._resume = resume
        self._evidence = evidence
        self._rows = rows
        self._link = link
        self._flag = flag
        self._agreement = agreement
        self._ranks = ranks
        self._outcome = settings.attempt_paths.outcome(settings.environment.rank_in_attempt)

    # ------------------------------------------------------------------ from the main thread

    def drained(self, reason: str | None = None) -> NoReturn:
        """Save this boundary, say so, and leave the process.

        Raises:
            SystemExit: This is how it leaves.
            KeyboardInterrupt: Likewise, where the stop button of a notebook asked.
        """
        self.raise_if_left()
        self.is_leaving = True
        self._link.beat(Phase.DRAIN)
        self._saves.save_now("drain")
        self._rows.close()
        self._evidence.close()
        newest = self._saves.newest
        self._evidence.witness.take(newest, self._flag.interruptible)
        self._leave_drained(newest, reason or self._flag.reason)

    def flushed(self, why: str) -> NoReturn:
        """Make the newest boundary in memory durable, say so, and leave the process.

        Raises:
            SystemExit: This is how it leaves.
        """
        self.is_leaving = True
        self._link.beat(Phase.DRAIN)
        newest = self._saves.flush()
        self._leave_drained(newest, f"{self._flag.reason or 'asked to stop'}, {why}")

    def raise_if_left(self) -> None:
        """Leave again, if the script has kept the process from leaving.

        Raises:
            SystemExit: The drain is done.
            KeyboardInterrupt: Likewise, where the stop button of a notebook asked.
        """
        if self._end is not None:
            raise type(self._end)(*self._end.args)

    def finished(self) -> None:
        """Save the state as the final one and say that the run is complete.

        If it was complete before and nothing was trained, put the final state back: what the script did since
        is in it already.
        """
        self.is_leaving = True
        self._link.beat(Phase.CHECKPOINT)
        if self._resume.restore_final():
            newest = self._saves.newest
            assert newest is not None
            self._evidence.trained_nothing()
        else:
            self._evidence.pass_boundary(is_final=True)
            newest = self._saves.finish()
        COMPLETED.hit()
        position, environment = self._position, self._settings.environment
        if environment.rank == 0:
            # A crash before this leaves a run that completes at once when it is resumed.
            finished = FinishedRecord(
                position.step, position.epoch, newest.name, environment.spec_digest, time.time()
            )
            records.write(self._settings.run.finished, finished)
        if self._ranks is not None:
            self._ranks.agreed("finished", lambda: True)  # no rank says so before rank 0 has recorded it
        leaving.record_finished(self._outcome, step=position.step, checkpoint=newest.name)
        self._link.beat(Phase.END)
        self._leave_ranks()

    def failed(self, error: BaseException, *, step: int | None) -> None:
        """Tell the other ranks, save the newest boundary held in memory, and record what ended the attempt.

        Args:
            error: What the script, or the session, raised.
            step: Steps finished, None if the state was not restored yet.

        Raises:
            SystemExit: A drain is pending, and what was raised may come of it.
        """
        was_leaving, self.is_leaving = self.is_leaving, True
        if self._ranks is None and not was_leaving and not isinstance(error, _NOT_SAVED):
            self._save_held(error, is_begun=step is not None)
        self._agreement.stop()
        if self._ranks is not None:
            error = self._ranks.cause_of(error)
            self._ranks.say_failed(error)
        if self._outcome.parent.is_dir():  # not before there is a run
            leaving.record_exception(self._outcome, error, step=step)

    def _save_held(self, error: BaseException, *, is_begun: bool) -> None:
        """Make the newest boundary held in memory durable; leave, if a drain is pending."""
        name = type(error).__name__
        newest = self._saves.newest
        if is_begun:
            try:
                held = self._saves.flush_held()
            except (Exception, SpaceError) as problem:  # noqa: BLE001 - must not hide `error`
                leaving.say(f"trainerd: {name}, and what is in memory cannot be saved: {problem}")
                return
            if held is not None and held != newest:
                leaving.say(f"trainerd: {name}: saved {held.name}, the newest boundary in memory")
            newest = held or newest
        if isinstance(error, _COMES_OF_SIGNAL) and not self._flag.is_set:
            time.sleep(SIGNAL_LIMIT_S)  # the thread that listens may not have read of the signal yet
        if self._flag.is_set:
            said = safe_line(str(error), characters_max=ERROR_CHARACTERS_MAX)
            reason = f"{self._flag.reason}, {name}" + (f": {said}" if said else "")
            self._leave_drained(newest, reason, error=error)

    # ------------------------------------------------------------------ from a thread that watches or listens

    def flush_and_leave(self, reason: str) -> NoReturn:
        """Make what is in memory durable and end the process at once."""
        if self.is_left:
            leaving.end_process(DRAINED)
        try:
            newest = self._saves.flush()
        except Exception as error:  # noqa: BLE001 - the process ends here in any case, and says why
            self.fail_and_leave(error)
        self._end_drained(newest, reason)

    def flush_alone(self, why: str) -> NoReturn:
        """Leave as a single rank that finds no boundary in time."""
        self.flush_and_leave(f"{self._flag.reason or 'asked to stop'}, {why}")

    def leave_at_this_boundary(self, reason: str) -> None:
        """Save the boundary crossed last, as other ranks do, while the script holds the main thread."""
        with self._saves.excluded(BETWEEN_SAVES_LIMIT_S) as staged:
            if self.is_leaving or staged is None:
                return  # the main thread is on its way out
            if not self._saves.is_safe_here():
                self.fail_and_leave(RankLostError(f"{reason}, and this rank has nothing to save yet"))
            self.flush_and_leave(f"{reason}, and the script was busy between two loops")

    def leave_with_what_all_hold(self, reason: str) -> None:
        """Save the boundary that all ranks hold, if it is the same, while the main threads are elsewhere."""
        assert self._ranks is not None
        with self._saves.excluded(BETWEEN_SAVES_LIMIT_S) as staged:
            all_hold = self._ranks.gather("flush/holds", staged, limit_s=FLUSH_ANSWER_LIMIT_S)
            if staged is not None and all(each == staged for each in all_hold):
                self.flush_and_leave(reason)
            leaving.say_last(
                f"trainerd: the ranks hold no boundary in common ({all_hold}): nothing more is saved"
            )
            self._end_drained(self._saves.newest, reason)

    def fail_and_leave(self, error: Exception) -> NoReturn:
        """End this process because of `error`."""
        leaving.say_last(f"trainerd: {type(error).__name__}: {error}: exiting {FAILED}")
        if self._ranks is not None:
            self._ranks.say_failed(error)
        leaving.record_exception(self._outcome, error, step=self._position.step)
        leaving.end_process(FAILED)

    # ------------------------------------------------------------------ within

    def _leave_drained(
        self, newest: Checkpoint | None, reason: str, *, error: BaseException | None = None
    ) -> NoReturn:
        """Leave from the thread that trains: the script cleans up."""
        end = _EXITING if self.ends_with is None else "leaving the function"
        self._record_drained(newest, reason, "the kernel goes on" if self._flag.is_stop_button else end)
        self.is_left = self._flag.is_answered = True
        self._wait_for_mirror(newest)
        limit_s = leave_limit_s(self._flag.left_s(self._settings.grace_s))
        began_s = time.monotonic()
        self.last_words.run(limit_s)
        try:
            if self._flag.is_stop_button:
                raise KeyboardInterrupt  # noqa: TRY301 - kept below, to be raised again
            if self.ends_with is not None:
                raise self.ends_with(reason)  # noqa: TRY301 - likewise
            DEPARTURE.limit_s = max(limit_s - (time.monotonic() - began_s), 0.0)
            leaving.exit_process(DRAINED)
        except BaseException as end:
            # Not this one: with its traceback it holds all that the script has.
            self._end = type(end)(*end.args)
            raise end from error

    def _wait_for_mirror(self, newest: Checkpoint | None) -> None:
        """Wait until the last checkpoint is in the mirror: this machine may not come back."""
        if newest is None:
            return
        left_s = self._flag.left_s(self._settings.grace_s)
        limit_s = MIRROR_LIMIT_S if left_s is None else max(left_s - MIRROR_RESERVE_S, 0.0)
        began_s = time.monotonic()
        is_there = self._saves.wait_for_mirror(newest, limit_s=limit_s)
        if is_there:
            leaving.say_last(f"trainerd: {newest.name} is in the mirror")
        elif is_there is not None:
            waited_s = time.monotonic() - began_s
            leaving.say_last(
                f"trainerd: {newest.name} is not in the mirror: waited {waited_s:.1f} s of at most "
                f"{limit_s:.0f} s"
            )

    def _end_drained(self, newest: Checkpoint | None, reason: str) -> NoReturn:
        """End the process at once, from a thread that watches: there is no time, or no way to be heard."""
        self._record_drained(newest, reason, _EXITING)
        self.last_words.run(LAST_WORDS_HURRIED_S)
        leaving.end_process(DRAINED)

    def _record_drained(self, newest: Checkpoint | None, reason: str, end: str) -> None:
        self._leave_ranks()
        if self._outcome.parent.is_dir():  # not before there is a run
            leaving.record_drained(
                self._outcome,
                step=newest.step if newest else self._position.step,
                checkpoint=newest.name if newest else None,
                reason=reason,
            )
        saved = f"saved {newest.name}" if newest else "nothing to save yet"
        leaving.say_last(f"trainerd: {reason}: {saved}, {end}")

    def _leave_ranks(self) -> None:
        """Stop answering the other ranks.

        The last save, in which all took part, has shown that none will ask.
        """
        self._agreement.stop()
        if self._ranks is not None:
            self._ranks.leave()
