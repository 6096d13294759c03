"""Gradients that a step leaves for the next one, where they decide what that one does.

Most loops clear the gradients at the end of each step or at the beginning of the next, and a checkpoint needs
none. A loop that is left in the middle of an accumulation leaves gradients that no optimizer has used, a
loop that clears none adds to those of the step before, and gradients of zeros are other than none: an
optimizer steps the parameters that have them.

Invariants:
    A step of an optimizer costs a look at a few parameters; nothing on a device is waited for.
    Gradients that the next step clears first take no room in a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.verdict import Reason
from trainerd.training.state.caller_names import CallerNames
from trainerd.training.state.kept_gradients import KeptGradients
from trainerd.training.state.later_steps import register_step_hook
from trainerd.training.state.optimizer_names import named_parameters
from trainerd.training.state.tracked import unwrapped
from trainerd.training.state.unnamed_gradients import UnnamedGradients, is_other_than_zero, watch_arrival
from trainerd.training.state.untracked_parameters import UntrackedParameters
from trainerd.training.state.used_gradients import UsedGradients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trainerd.training.state.tracked import Objects

_ASKED_MAX: Final = 16
"""After so many boundaries it is left open what the loop does with gradients that did not arrive yet."""

UNKNOWN_BYTES_MAX: Final = 64 << 20
"""So much a checkpoint keeps while it is not known yet whether the next step clears the gradients first."""


@dataclass
class _Habit:
    """What the loop does with the gradients of one optimizer, or of what none has, between two steps.

    Attributes:
        is_cleared: Whether the next step clears them before it adds to them; None is not known yet.
        stays: Whether it does so by writing zeros; None is not known yet.
        asked: The parameter at which the next backward pass tells.
    """

    is_cleared: bool | None = None
    stays: bool | None = None
    asked: torch.Tensor | None = None


@dataclass
class _Left:
    """Gradients at a boundary.

    Attributes:
        gradients: Those that the next step needs, by the name of the parameter.
        zeros: Names of the parameters whose gradients the next step finds as zeros.
        habits: What is known of each owner: whether the next step clears them, and by zeros.
        unknown: Names of the owners whose gradients were left out before that was known.
        lost: Names of parameters whose gradients are needed and have no form on disk.
    """

    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    zeros: list[str] = field(default_factory=list)
    habits: dict[str, list[bool | None]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def as_plain(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value}


class LeftGradients:
    """The gradients of what trains, as far as they belong to the state of a boundary.

    Args:
        objects: What is tracked.
        suspect: Takes in that gradients are needed which no checkpoint has.
    """

    def __init__(self, objects: Objects, suspect: Callable[[Reason], None]) -> None:
        self._objects = objects
        self._suspect = suspect
        self._habits: dict[str, _Habit] = {}
        self._used = UsedGradients()
        self._is_known = False
        self._asked = 0
        self._guessed: list[str] = []
        self._hook: Any = None
        self._beside = UntrackedParameters()
        self._unnamed = UnnamedGradients(suspect)

    # ------------------------------------------------------------------ as the run goes on

    def watch(self) -> None:
        """Note from here on with which gradients optimizers step."""
        if self._hook is None and register_step_hook is not None:
            self._hook = register_step_hook(self._stepped)

    def look_beside(self, names: CallerNames) -> None:
        """Take in what the user's code has beside what is tracked, and may have gradients. Once, at first."""
        self._beside.look(names, self._tracked())
        self._is_known = False

    def ask_elsewhere(self, place: str) -> None:
        """Watch the gradients of parameters that the user's code has no name for; see `UnnamedGradients`.

        Args:
            place: Where the loop is, for messages.
        """
        self._unnamed.ask({id(each) for _, own in self._owners() for each in own}, place)

    def close(self) -> None:
        """Stop watching."""
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()
        self._habits = {}
        self._used.forget()
        self._unnamed.close()

    def boundary_passed(self) -> None:
        """A step is done, or an epoch. The first backward pass after one shows what the loop does."""
        if self._is_known:
            return
        self._asked += 1
        self._is_known = True
        for name, parameters in self._owners():
            habit = self._habits.setdefault(name, _Habit())
            if habit.is_cleared is None and parameters:
                self._is_known = self._asked > _ASKED_MAX  # some parameters never get a gradient
                self._ask(name, habit, parameters)

    def _ask(self, name: str, habit: _Habit, parameters: list[torch.Tensor]) -> None:
        """Look at what is there of a gradient when the next one arrives."""
        parameter = _with_smallest_gradient(parameters)
        if parameter is None or habit.asked is not None:
            return

        def arrived() -> None:
            habit.asked, habit.stays = None, parameter.grad is not None
            habit.is_cleared = not is_other_than_zero([parameter.grad])
            if not habit.is_cleared and name in self._guessed:
                self._suspect(_not_kept(name))

        habit.asked = parameter
        watch_arrival(parameter, arrived)

    def _stepped(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            return
        if self._used.are_of_other_groups(optimizer):  # what is taken out of a group is cleared no more
            self._is_known, self._asked = False, 0
        if not self._is_known:
            self._learn(optimizer)
        self._used.note(optimizer)

    def _learn(self, optimizer: torch.optim.Optimizer) -> None:
        """Tell by the gradients of a step what no hook tells: FSDP2 sets them past autograd.

        Another object than in the step before was made because the former one was cleared. The same one was
        added to, or cleared by writing zeros.
        """
        name = next((name for name, value in self._objects.items() if value is optimizer), None)
        habit = self._habits.get(name) if name is not None else None
        if habit is None or name is None or habit.is_cleared is not None:
            return
        habit.is_cleared = self._used.are_other_objects(optimizer)
        if habit.is_cleared is not None:
            habit.stays = not habit.is_cleared
            if not habit.is_cleared and name in self._guessed:
                self._suspect(_not_kept(name))

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint of this boundary keeps."""
        if any(isinstance(value, KeptGradients) for value in self._objects.values()):
            return {}  # a framework keeps them
        left = _Left()
        owners = list(self._owners())
        habits = {name: each for name, _ in owners if (each := self._habits.get(name)) is not None}
        left.habits = {name: [each.is_cleared, each.stays] for name, each in habits.items()}
        if all(parameter.grad is None for _, parameters in owners for parameter in parameters):
            return left.as_plain()
        labels = self._labels()
        for name, parameters in owners:
            self._take(left, name, parameters, labels)
        return left.as_plain()

    def _take(self, left: _Left, name: str, parameters: list[torch.Tensor], labels: dict[int, str]) -> None:
        there = [each for each in parameters if each.grad is not None]
        habit = self._habits.get(name, _Habit())
        if name in self._objects:
            is_needed = not (habit.is_cleared and self._used.by_last_step(parameters))
        else:  # what no optimizer steps may still be added up, and count for the norm of a clipping
            is_needed = not (habit.is_cleared and len(self._habits) > 1)
        if is_needed and habit.is_cleared is None and self._used.by_last_step(parameters):
            has_form = all(type(each.grad) is torch.Tensor for each in there)
            is_needed = has_form and sum(each.nbytes for each in there) <= UNKNOWN_BYTES_MAX
            left.unknown += [] if is_needed else [name]
        if is_needed and is_other_than_zero([each.grad for each in there]):
            for each in there:
                gradient = each.grad
                if type(gradient) is torch.Tensor:
                    left.gradients[labels[id(each)]] = gradient.detach()
                else:
                    left.lost.append(labels[id(each)])
        elif is_needed or habit.stays is not False:
            left.zeros += [labels[id(each)] for each in there if type(each.grad) is torch.Tensor]

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Put the gradients of a boundary back; without such a state, leave all as it is."""
        if state is None or any(isinstance(value, KeptGradients) for value in self._objects.values()):
            return
        gradients, zeros = state.get("gradients", {}), set(state.get("zeros", ()))
        self._guessed = list(state.get("unknown", ()))
        labels, lost = self._labels(), list(state.get("lost", ()))
        if absent := {*gradients, *zeros} - set(labels.values()):
            self._beside.find(absent, CallerNames())
            labels = self._labels()
            self._say_absent(absent - set(labels.values()))
        for _, parameters in self._owners():
            for parameter in parameters:
                name = labels[id(parameter)]
                if name in gradients:
                    if not _put(parameter, gradients[name]):
                        lost.append(name)
                elif name in zeros:
                    parameter.grad = torch.zeros_like(parameter, requires_grad=False)
                elif parameter.grad is not None:
                    parameter.grad = None
        self._used.forget()
        for name, parameters in self._owners():
            is_cleared, stays = state.get("habits", {}).get(name, (None, None))
            habit = self._habits.setdefault(name, _Habit())
            habit.is_cleared, habit.stays = is_cleared, stays
            if is_cleared is None and name not in self._guessed:
                self._ask(name, habit, parameters)
        self._is_known, self._asked = False, 0
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            self._suspect(
                Reason(
                    "gradients-not-kept",
                    f"{lost[0]}{more}",
                    "had a gradient that the next step adds to, and the checkpoint does not have it",
                    "clear the gradients at the end of each loop: optimizer.zero_grad()",
                )
            )

    def _say_absent(self, labels: set[str]) -> None:
        for label in sorted(labels)[:1]:
            more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
            self._suspect(
                Reason(
                    "gradients-not-kept",
                    f"{label}{more}",
                    "had a gradient at the checkpoint, to which each step adds, and there is no such "
                    "parameter here to give it back to",
                    "freeze what is not trained, with requires_grad_(False), or track it",
                )
            )

    # ------------------------------------------------------------------ within

    def _tracked(self) -> set[int]:
        """Return the identities of the parameters of what is tracked."""
        found = {id(each) for _, each in named_parameters(self._objects)}
        for value in self._objects.values():
            if isinstance(value, torch.optim.Optimizer):
                found.update(id(each) for group in value.param_groups for each in group["params"])
        return found

    def _owners(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """Yield the parameters of each tracked optimizer, and under no name those that none has.

        At last come those of what is not tracked, under names that no object has.
        """
        seen: set[int] = set()
        for name, value in self._objects.items():
            if isinstance(value, torch.optim.Optimizer):
                own = [
                    each for group in value.param_groups for each in group["params"] if id(each) not in seen
                ]
                seen.update(map(id, own))
                yield name, own
        others: list[torch.Tensor] = [
            each for _, each in named_parameters(self._objects) if id(each) not in seen
        ]
        yield "", others
        seen.update(map(id, others))
        yield from ((name, list(own.values())) for name, own in self._beside.owners(seen))

    def _labels(self) -> dict[int, str]:
        """Return a name for each parameter: that in its module, or its place in an optimizer."""
        beside = {id(each): label for _, own in self._beside.owners(()) for label, each in own.items()}
        labels: dict[int, str] = {}
        for name, value in self._objects.items():
            if isinstance(unwrapped(value), torch.optim.Optimizer):
                for number, group in enumerate(value.param_groups):  # type: ignore[attr-defined]
                    for index, each in enumerate(group["params"]):
                        labels.setdefault(id(each), f"{name}.param_groups[{number}][{index}]")
        return beside | labels | {id(each): name for name, each in named_parameters(self._objects)}


def _not_kept(optimizer: str) -> Reason:
    return Reason(
        "gradients-not-kept",
        optimizer,
        "its gradients are added to those of the step before, and the checkpoint was made "
        "when that was not known: it does not have them",
        "clear them in each step: optimizer.zero_grad()",
    )


def _with_smallest_gradient(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """Return the parameter with the smallest gradient of those whose gradient may be replaced."""
    sizes = [(each.numel(), each) for each in parameters if each.grad is not None and each.requires_grad]
    found = min((each for each in sizes if each[0]), key=lambda each: each[0], default=None)
    return None if found is None else found[1]


def _put(parameter: torch.Tensor, gradient: torch.Tensor) -> bool:
    """Set the gradient of a parameter to a copy; return whether it fits."""
    try:
        parameter.grad = gradient.detach().to(parameter.device, copy=True)
    except (RuntimeError, TypeError):
        return False
    return True
