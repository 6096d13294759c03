"""Whether the same failure comes again and again, and what is done about it: pure.

A failure that comes at the same step from the same checkpoint may be in the checkpoint. What an attempt saved
from memory because it failed counts as the checkpoint from which it had gone on. So after three of them the
job goes back to the checkpoint before; if the failure comes at that step again, it is in the program
or in its data, and no restart helps. What is killed from outside, or lost with its machine, says nothing of
that kind.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.machine.outcome import Retry

if TYPE_CHECKING:
    from trainerd.supervisor.machine.outcome import Outcome

SAME_MAX: Final = 3
"""How often the same failure may come from one checkpoint before the job goes back to the one before."""


@dataclass(frozen=True)
class Repeat:
    """The newest failure, and how often it came in a row.

    Attributes:
        failure: What it is told by: its class, and the exception or signal.
        step: Last step that was finished before it.
        resumed_from: The checkpoint that the attempt had gone on from.
        saved_at_end: What that attempt saved because it failed; None if it had begun from nothing.
        times: How often in a row, all three being the same.
        has_gone_back: Whether the job went back to an older checkpoint because of it.
    """

    failure: str
    step: int | None
    resumed_from: str | None
    times: int = 1
    has_gone_back: bool = False
    saved_at_end: str | None = None

    def is_start_of(self, later: Repeat) -> bool:
        """Return whether a later attempt began from the same checkpoint, or from what this one saved."""
        if later.resumed_from is None:
            return self.resumed_from is None
        return later.resumed_from in {self.resumed_from, self.saved_at_end}


class Remedy(enum.Enum):
    """What repeating asks for."""

    NONE = "go on as usual"
    GO_BACK = "go back to the checkpoint before"
    GIVE_UP = "park it"


def after_failure(before: Repeat | None, outcome: Outcome) -> tuple[Repeat | None, Remedy]:
    """Take in an ending; return the failure in a row that it is, None if it is no failure, and what to do."""
    if not outcome.failure:
        return before, Remedy.NONE
    saved_at_end = outcome.saved_at_end if outcome.resumed_from is not None else None
    repeat = Repeat(outcome.failure, outcome.step, outcome.resumed_from, saved_at_end=saved_at_end)
    is_same = before is not None and (before.failure, before.step) == (repeat.failure, repeat.step)
    if before is not None and is_same:
        if before.has_gone_back:
            return replace(before, times=before.times + 1), Remedy.GIVE_UP
        if before.is_start_of(repeat):
            repeat = replace(repeat, times=before.times + 1)
    is_due = repeat.times >= SAME_MAX and repeat.resumed_from is not None
    if outcome.retry is Retry.FROM_THE_CHECKPOINT_BEFORE or is_due:
        if outcome.checkpoint_before is not None:
            return replace(repeat, has_gone_back=True), Remedy.GO_BACK
        if outcome.retry is Retry.FROM_THE_CHECKPOINT_BEFORE and repeat.times > 1:
            return repeat, Remedy.GIVE_UP
    return repeat, Remedy.NONE
