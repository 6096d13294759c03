"""The audited steps of an attempt: what is not tracked is an error or a suspicion.

They are the first one, and each later one in which an optimizer steps for the first time.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training.engine.caller_check import is_silenced_at
from trainerd.training.engine.observing import observed, unseen
from trainerd.training.engine.surroundings import Surroundings
from trainerd.training.state.audit import MANUAL_ACCUMULATION, Audit, Untracked
from trainerd.training.state.audit_coverage import Coverage
from trainerd.training.state.caller_names import CallerNames
from trainerd.training.state.hand_kept_state import HandKeptState
from trainerd.training.state.loaders_beside import LoadersBeside
from trainerd.training.state.tensor_leaves import leaves_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainerd.training.engine.observing import Found
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.engine.suspicions import Suspicions

_SHOWN_MAX: Final = 6
_LOOKS: Final = frozenset({1, 8, 64, 512, 4096})
"""After so many steps of an attempt it is asked what the next one leaves by hand: some begin it late."""
_EPOCHS_WATCHED: Final = 2
"""At the ends of so many epochs it is asked what was drawn from and changed since the first step."""
_STEPS_WATCHED: Final = 1024
"""So many steps at most, for loops without epochs: it is asked after 2, 4, 8 … steps."""


class FirstStep:
    """Audits the first step of one attempt, and looks in the second one for what goes on beside it.

    Later steps cost the question whether an optimizer has stepped that has not before.

    Args:
        state: State of the run.
        suspicions: Take what is found if it is no error.
        is_strict: Whether what is found is an error.
    """

    def __init__(self, state: RunState, suspicions: Suspicions, *, is_strict: bool) -> None:
        self._audit = Audit(state.objects, state.values.state_dict)
        self._state = state
        self._surroundings: Surroundings | None = Surroundings(state)
        self._epochs = 0
        self._next_look = 2
        self._suspicions = suspicions
        self._is_strict = is_strict
        self._is_watching = self._is_audited = False
        self._beside: LoadersBeside | None = None
        self._hand_kept: HandKeptState | None = None
        self._steps = 0

    def begin_epoch(self) -> None:
        """An epoch begins: its code before the first step may shuffle what is there."""
        if not self._is_watching and self._surroundings is not None:
            surroundings = self._surroundings
            self._observed(lambda: surroundings.begin_epoch(CallerNames()))

    def begin(self) -> None:
        """The body of a step begins. Only the first call counts."""
        if not self._is_watching:
            self._is_watching = True
            coverage = self._coverage()
            names = self._observed(CallerNames)
            if names is not None:
                self._observed(lambda: self._audit.watch(coverage, names))
                self._observed(lambda: self._state.gradients.look_beside(names))
                for expression in names.unseen:
                    self._not_kept(unseen(expression, names.place))
            if names is not None and (surroundings := self._surroundings) is not None:
                self._observed(lambda: surroundings.begin(coverage, names))
            for reason in (*self._state.objects.replaced_modules(), *self._state.replaced_steps()):
                self._suspicions.add(reason)

    def end(self) -> None:
        """A step is done, and not counted yet.

        Raises:
            UserError: Something that decides the rest of the run is in no checkpoint.
        """
        self._steps += 1
        if self._is_audited:
            if self._beside is not None:
                self._observed(self._look_beside)
            if self._steps == self._next_look and self._surroundings is not None:
                self._look_around()
                self._next_look *= 2
                if self._steps >= _STEPS_WATCHED:
                    self._stop_watching()
            if self._hand_kept is not None:
                self._observed(self._look_at_hand_kept)
            if self._steps in _LOOKS:
                self._observed(lambda: self._begin_look(CallerNames()))
            if self._audit.has_later:
                step = self._state.position.step + 1
                self._judge(
                    self._observed(self._audit.later_findings) or [],
                    f"step {step}, in which an optimizer steps that had not before,",
                )
            return
        self._is_audited = True
        found = (self._observed(self._audit.findings) if self._is_watching else None) or []
        if self._is_strict and self._state.position.step > 0:
            # Seen in the first attempt. The first step of this one may be the last of a loop that was left in
            # the middle of an accumulation; the gradients are in the checkpoints.
            found = [each for each in found if each.kind != MANUAL_ACCUMULATION]
        self._judge(found, "the first step")
        self._observed(self._begin_looks)
        self._look_around()

    def end_epoch(self) -> None:
        """An epoch is over: what its steps did not draw or change, the code between them may have."""
        if self._surroundings is not None:
            self._surroundings.pass_over_metrics()
        self._look_around()
        self._epochs += 1
        if self._epochs >= _EPOCHS_WATCHED:
            self._stop_watching()

    def close(self) -> None:
        """The attempt is over."""
        self._audit.close()
        self._stop_watching()
        if self._hand_kept is not None:
            self._hand_kept.close()
            self._hand_kept = None

    def _stop_watching(self) -> None:
        self._surroundings = None

    def _coverage(self) -> Coverage:
        return Coverage(self._state.objects, self._state.values.state_dict())

    def _observed(self, look: Callable[[], Found]) -> Found | None:
        return observed(look, self._not_kept)

    def _look_around(self) -> None:
        """Look for generators that were drawn from, and objects that were changed, and are not tracked."""
        if (surroundings := self._surroundings) is not None:
            found = self._observed(lambda: list(surroundings.reasons(self._coverage())))
            for name, reason in found or ():
                self._not_kept(reason, of=name)

    def _begin_looks(self) -> None:
        self._beside = LoadersBeside()
        names = CallerNames()
        self._state.gradients.ask_elsewhere(names.place)
        self._begin_look(names)

    def _look_beside(self) -> None:
        beside, self._beside = self._beside, None
        for reason in beside.reasons() if beside is not None else ():
            self._not_kept(reason)

    def _begin_look(self, names: CallerNames) -> None:
        """Note what scripts have beside what is tracked, to see what the next step makes of it."""
        values, objects = self._state.values.state_dict(), self._state.objects
        kept = [
            leaves_of(each) for each in (objects.module_changes(), values, *map(_parts, objects.values()))
        ]
        is_late = self._steps > 1
        self._hand_kept = HandKeptState(self._coverage(), itertools.chain(*kept), names, has_modules=is_late)

    def _look_at_hand_kept(self) -> None:
        hand_kept, self._hand_kept = self._hand_kept, None
        if hand_kept is not None and hand_kept.has_any:
            for name, reason in hand_kept.reasons(CallerNames()).items():
                self._not_kept(reason, of=name)

    def _not_kept(self, reason: Reason, *, of: str = "") -> None:
        """Take in that no checkpoint holds something. Those made from here on say so to a resume at once."""
        if is_silenced_at(reason.where):
            return
        self._suspicions.add(reason, of=of)
        if self._suspicions.has(reason) and reason not in self._state.not_kept:
            self._state.not_kept.append(reason)

    def _judge(self, found: list[Untracked], which_step: str) -> None:
        if found and self._is_strict:
            raise audit_error(found, which_step)
        for each in found:
            self._suspicions.add(Reason(each.kind, each.where, each.detail, each.hint))


def _parts(value: Any) -> dict[str, Any]:
    """Return what an object with a state of its own has: it is given the benefit of saving all of it."""
    is_known = isinstance(value, torch.nn.Module | torch.optim.Optimizer)
    return {} if is_known else getattr(value, "__dict__", {})


def audit_error(found: Sequence[Untracked], which_step: str = "the first step") -> UserError:
    """Return the error that names what was found, with the line to add."""
    shown = [f"    {each.where}: {each.detail}" for each in found[:_SHOWN_MAX]]
    more = [f"    and {len(found) - _SHOWN_MAX} more"] if len(found) > _SHOWN_MAX else []
    arguments = list(dict.fromkeys(each.argument for each in found if each.argument))
    hints = list(dict.fromkeys(each.hint for each in found if not each.argument))
    if arguments:
        session = (
            next(each.hint for each in found if each.argument).removeprefix("add ").partition(".track(")[0]
        )
        hints.insert(0, f"add before the loop: {session}.track({', '.join(arguments)})")
    hints.append("or open session(strict=False), and the resume is called suspect")
    lines = [f"{which_step} shows what no checkpoint would hold:", *shown, *more]
    return UserError("\n".join(lines), hint="\n  ".join(hints))
