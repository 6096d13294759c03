"""At which boundary all ranks do the same: drain, or save what no rule lets each find out by itself.

A boundary has a number: how many this attempt has crossed. All ranks cross the same ones in the same order,
though not at the same time. An agreement is a round of three acts, each a word in the store that the ranks
share:

1. One rank *asks*: it was signalled, or its clock says that a save is due.
2. Each rank *proposes* the first boundary at which it can still do it. It will not go past that one before it
   knows what was decided. The proposal is made by a thread of its own, so that a rank whose main thread waits
   in a collective for one that has stopped already answers all the same.
3. The *decision* is the last of the proposed boundaries: no rank is past it, and each will come to it.

Invariants:
    No collective is used, and a step on which no rank asks sends no message.
    A rank never enters the step after its proposal without a decision.
    Decisions come true in the order of their rounds, for a later round proposes no earlier boundary.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

from trainerd.contract.save_reasons import FLUSHED
from trainerd.errors import RankLostError
from trainerd.training.distributed.rank_store import POLL_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.interruption.drain_flag import DrainFlag

JointAction = Literal["drain", "save", "copy", "stage"]

LISTEN_S: Final = 0.02
"""How often a rank checks whether it was signalled and whether another rank asks, in seconds."""
PROPOSAL_LIMIT_S: Final = 120.0
"""How long the others may take to propose, in seconds; their threads do, whatever the training does."""
STUCK_S: Final = 3.0
"""How long a rank may stay in the script's own code at a boundary at which all drain, in seconds. It may be
waiting there for a rank that drains already: then it never comes."""
LOST_LIMIT_S: Final = 5.0
"""How long the main thread may take to find out itself that another rank is gone, in seconds. In a collective
on a GPU it may wait for that one for many minutes."""
_SERVED_BY: Final[dict[str, frozenset[str]]] = {
    "save": frozenset({"save"}),
    "copy": frozenset({"save", "copy"}),
    "stage": frozenset({"save", "copy", "stage"}),
}
"""What serves each request: a copy stays staged, and what is saved need not be copied."""
_PAST_ALL: Final = 1 << 62
"""The proposal of a rank that has finished: what is asked now is overtaken by the end of the run."""


@dataclass(frozen=True)
class JointDecision:
    """What all ranks do at one boundary, and why.

    Attributes:
        boundary: Number of the boundary.
        action: What they do there.
        reason: Why.
        number: Number of the round in which it was agreed upon: the same for all ranks.
    """

    boundary: int
    action: JointAction
    reason: str
    number: int = field(default=0, compare=False)


@dataclass(frozen=True)
class WaysOut:
    """How a rank leaves while its main thread is elsewhere.

    Attributes:
        at_this_boundary: Saves the boundary crossed last and leaves: the others make this save. Told for what
            reason.
        with_what_all_hold: Saves what is staged, if all ranks hold the same boundary, and leaves. All of them
            are called. Told for what reason, and why no boundary was waited for.
        when_lost: Ends this rank, because another rank is gone.
    """

    at_this_boundary: Callable[[str], None]
    with_what_all_hold: Callable[[str], None]
    when_lost: Callable[[RankLostError], None]


class Agreement(Protocol):
    """What a session asks at each boundary."""

    def cross(self, *, is_last: bool = False) -> bool:
        """Cross to the next boundary; refuse, by False, while there is something to `settle` at this one.

        Args:
            is_last: Whether the run is over there.
        """
        ...

    def enter(self) -> bool:
        """Leave the boundary for the step after it.

        Refuse, by False, while there is something to `settle`.
        """
        ...

    def settle(self) -> list[JointDecision]:
        """Return what is to be done here and now, waiting for a decision if one was proposed.

        Raises:
            RankLostError: Another rank is gone.
        """
        ...

    def is_drain_due(self) -> bool:
        """Tell whether to drain here and now. Never waits."""
        ...

    def is_drain_near(self) -> bool:
        """Tell whether to drain here or at the end of this step. Never waits."""
        ...

    def request(self, action: JointAction, reason: str) -> None:
        """Ask for something at a boundary soon: to save it, or to hold a copy.

        May be asked again until it was done.
        """
        ...

    def leave_without_boundary(self, why: str) -> None:
        """A drain was asked for, and no boundary comes in time: let all ranks leave with what they hold."""
        ...

    def start(self, ways: WaysOut) -> None:
        """The first boundary: the state was restored."""
        ...

    def stop(self) -> None:
        """Nothing is agreed upon any more."""
        ...


class Alone:
    """A single rank agrees with itself."""

    def __init__(self, flag: DrainFlag) -> None:
        self._flag = flag

    def cross(self, *, is_last: bool = False) -> bool:
        del is_last
        return True

    def enter(self) -> bool:
        return True

    def settle(self) -> list[JointDecision]:
        return [JointDecision(0, "drain", self._flag.reason)] if self._flag.is_set else []

    def is_drain_due(self) -> bool:
        return self._flag.is_set

    def is_drain_near(self) -> bool:
        return self._flag.is_set

    def request(self, action: JointAction, reason: str) -> None:
        raise AssertionError(f"a single rank does it without asking: {action}, {reason}")

    def leave_without_boundary(self, why: str) -> None:
        raise AssertionError(f"a single rank leaves without asking: {why}")

    def start(self, ways: WaysOut) -> None:
        del ways

    def stop(self) -> None:
        return


class Together:
    """One of several ranks.

    Args:
        ranks: This rank and the others.
        flag: Whether this rank was signalled.
        wants_copy: Tells whether this rank would have the next boundary copied into memory, given whether a
            step is in progress. Asked all the time, from the thread that listens, so that it is agreed upon
            within the step: where steps are long, no rank waits for it.
    """

    def __init__(
        self, ranks: Ranks, flag: DrainFlag, *, wants_copy: Callable[[bool], bool] = lambda _is_in_step: False
    ) -> None:
        self._ranks = ranks
        self._flag = flag
        self._wants_copy = wants_copy
        self._boundary = 0
        self._is_inside_step = False
        self._is_past_all = False
        self._proposal: int | None = None
        self._decisions: list[JointDecision] = []
        self._drain_reason: str | None = None
        self._request: tuple[JointAction, str] | None = None
        self._hurry: str | None = None
        self._is_due_since_s: float | None = None
        self._ways: WaysOut | None = None
        self._lost: RankLostError | None = None
        self._round = 0
        self._changed = threading.Condition()
        self._is_over = threading.Event()
        self._listener: threading.Thread | None = None

    def start(self, ways: WaysOut) -> None:
        self._ways = ways
        self._listener = threading.Thread(target=self._listen, name="trainerd-agree", daemon=True)
        self._listener.start()

    def stop(self) -> None:
        self._is_over.set()
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join(timeout=1.0)

    # ------------------------------------------------------------------ the training thread

    def cross(self, *, is_last: bool = False) -> bool:
        with self._changed:
            if self._is_bound():
                return False
            self._boundary += 1
            self._is_inside_step = False
            self._is_past_all = is_last
            return True

    def enter(self) -> bool:
        with self._changed:
            if self._is_bound():
                return False
            self._is_inside_step = True
            return True

    def settle(self) -> list[JointDecision]:
        with self._changed:
            is_known = self._changed.wait_for(
                lambda: self._lost or not self._has_proposed(), PROPOSAL_LIMIT_S
            )
            if self._lost is not None:
                raise self._lost
            if not is_known:
                raise RankLostError(f"the other ranks did not agree within {PROPOSAL_LIMIT_S:g} s")
            due = [] if self._is_inside_step else [each for each in self._decisions if self._is_due(each)]
            self._decisions = [each for each in self._decisions if each not in due]
            return due

    def is_drain_due(self) -> bool:
        with self._changed:
            return not self._is_inside_step and any(
                each.action == "drain" and self._is_due(each) for each in self._decisions
            )

    def is_drain_near(self) -> bool:
        with self._changed:
            return any(
                each.action == "drain" and each.boundary <= self._boundary + 1 for each in self._decisions
            )

    def request(self, action: JointAction, reason: str) -> None:
        with self._changed:
            is_less = self._request is not None and action == "stage"
            if not is_less and not self._is_decided(_SERVED_BY[action]):
                self._request = (action, reason)

    def leave_without_boundary(self, why: str) -> None:
        self._hurry = why  # the listener sees to it

    def _is_decided(self, actions: frozenset[str]) -> bool:
        return any(each.action in actions for each in self._decisions)

    def _is_bound(self) -> bool:
        """Tell whether something keeps this rank where it is."""
        if self._is_inside_step:
            return False
        return self._lost is not None or self._has_proposed() or any(map(self._is_due, self._decisions))

    def _has_proposed(self) -> bool:
        return self._proposal is not None and self._proposal <= self._boundary and not self._is_inside_step

    def _is_due(self, decision: JointDecision) -> bool:
        return decision.boundary <= self._boundary

    # ------------------------------------------------------------------ the listener

    def _listen(self) -> None:
        try:
            while not self._is_over.wait(LISTEN_S):
                self._ranks.look_for_the_lost()
                self._ask()
                if self._ranks.has(self._key("asked")):
                    self._hold_round()
                if self._drain_reason is not None:
                    self._leave_if_stuck(self._drain_reason)
        except RankLostError as error:
            with self._changed:
                self._lost = error
                self._changed.notify_all()
            if self._ways is not None and not self._is_over.wait(LOST_LIMIT_S):
                self._ways.when_lost(error)

    def _ask(self) -> None:
        if self._flag.is_set and self._drain_reason is None:
            reason = f"{self._flag.reason} to rank {self._ranks.rank}"
            self._ranks.put_first(self._key("asked"), {"action": "drain", "reason": reason})
        elif (request := self._request) is not None:
            self._ranks.put_first(self._key("asked"), {"action": request[0], "reason": request[1]})
        elif self._drain_reason is None and self._is_copy_wanted():
            self._ranks.put_first(self._key("asked"), {"action": "copy", "reason": FLUSHED})

    def _is_copy_wanted(self) -> bool:
        with self._changed:
            if self._is_past_all or self._is_decided(_SERVED_BY["copy"]):
                return False
            is_in_step = self._is_inside_step
        return self._wants_copy(is_in_step)

    def _hold_round(self) -> None:
        asked = self._ranks.get(self._key("asked"))
        with self._changed:
            proposal = self._proposal = self._first_possible()
        self._ranks.put(f"{self._key('proposal')}/{self._ranks.rank}", proposal)
        proposals = [proposal, *(self._proposal_of(rank) for rank in self._ranks.others)]
        if self._is_over.is_set():
            return
        with self._changed:
            self._proposal = None
            self._decisions.append(
                JointDecision(max(proposals), asked["action"], asked["reason"], self._round)
            )
            if asked["action"] == "drain":
                self._drain_reason = asked["reason"]
            self._request = None  # a drain saves as well; what was only to be staged is requested again
            self._changed.notify_all()
        self._round += 1

    def _leave_if_stuck(self, reason: str) -> None:
        """The drain was decided: leave from here if the main thread does not come to it."""
        assert self._ways is not None
        if self._hurry is not None:
            self._ranks.put_first("flush/asked", self._hurry)
        if self._ranks.has("flush/asked"):
            self._ways.with_what_all_hold(f"{reason}, {self._ranks.get('flush/asked')}")
            return
        with self._changed:
            due = [each for each in self._decisions if each.action == "drain" and self._is_due(each)]
            if self._is_inside_step or not due:
                self._is_due_since_s = None
                return
        now_s = time.monotonic()
        self._is_due_since_s = self._is_due_since_s or now_s
        if now_s - self._is_due_since_s >= STUCK_S:
            self._ways.at_this_boundary(reason)

    def _proposal_of(self, rank: int) -> int:
        """Wait for another rank's proposal; 0 if this rank no longer waits for it."""
        key = f"{self._key('proposal')}/{rank}"
        while not self._ranks.has(key):
            if self._is_over.wait(POLL_S):
                return 0
            self._ranks.look_for_the_lost()
        return int(self._ranks.get(key))

    def _first_possible(self) -> int:
        if self._is_past_all:
            return _PAST_ALL
        return self._boundary + 1 if self._is_inside_step else self._boundary

    def _key(self, act: str) -> str:
        return f"round/{self._round}/{act}"
