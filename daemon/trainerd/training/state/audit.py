"""Audit at the first step of an attempt: what trains is compared with what is tracked.

While the first step runs, torch tells of every optimizer that steps. At its end the live objects are looked
through once: schedulers, gradient scalers and averages that belong to something tracked and are in no
checkpoint. The same is done at the end of a later step in which an optimizer steps for the first time.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.counted import counted
from trainerd.training.state.accumulation import GradientsBefore
from trainerd.training.state.audit_coverage import Coverage, parameters_of
from trainerd.training.state.audit_kinds import (
    average_of,
    is_scaler_in_use,
    is_scheduler_of,
    live_candidates,
    wrapped_optimizer,
)
from trainerd.training.state.caller_names import CallerNames, Known, place_of_frame, user_frames
from trainerd.training.state.hand_kept_averages import CopiesBefore
from trainerd.training.state.kept_gradients import KeptGradients
from trainerd.training.state.later_steps import LaterSteps, register_step_hook
from trainerd.training.state.live_objects import live_instances
from trainerd.training.state.optimizer_names import named_parameters
from trainerd.training.state.tracked import Objects, Stateful, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


MANUAL_ACCUMULATION: Final = "manual-accumulation"


@dataclass(frozen=True)
class Untracked:
    """Something that decides the rest of the run and is in no checkpoint.

    Attributes:
        kind: Short name of the cause.
        where: File and line.
        detail: What was found.
        hint: What to write.
        argument: Argument of ``track`` that fixes it, empty if no argument does.
    """

    kind: str
    where: str
    detail: str
    hint: str
    argument: str = ""


@dataclass
class _Stepped:
    """An optimizer that stepped: where, and the scalers through which it was called."""

    optimizer: torch.optim.Optimizer
    where: str
    scalers: list[Any]


class Audit:
    """Watches one step of a loop that trains, and then says what of it is not tracked.

    Args:
        objects: What is tracked.
        values: Returns the values of the session.
    """

    def __init__(self, objects: Objects, values: Callable[[], Mapping[str, Any]]) -> None:
        self._objects = objects
        self._values = values
        self._stepped: dict[int, _Stepped] = {}
        self._hook: Any = None
        self._gradients: GradientsBefore | None = None
        self._copies: CopiesBefore | None = None
        self._words: dict[str, Any] = {}
        self._later: LaterSteps | None = None

    @property
    def has_later(self) -> bool:
        """Whether an optimizer has stepped for the first time since `findings` or `later_findings`."""
        return self._later is not None and self._later.has_new

    def watch(self, coverage: Coverage | None = None, names: CallerNames | None = None) -> None:
        """Note from here on which optimizers step. Call it where the body of the first step begins.

        Args:
            coverage: What is kept now, if that was asked already.
            names: Names of the script's code now, likewise.
        """
        if register_step_hook is not None:
            self._hook = register_step_hook(self._note_step)
        coverage = coverage or Coverage(self._objects, self._values())
        self._gradients = GradientsBefore(self._objects, coverage)
        names = names or CallerNames(sys._getframe(1))  # noqa: SLF001 - the documented way to it
        self._copies = CopiesBefore(coverage, names)

    def close(self) -> None:
        """Stop watching."""
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()
        if self._later is not None:
            self._later.close()
            self._later = None
        self._forget_step()

    def findings(self) -> list[Untracked]:
        """Return what of the step that is done is not tracked, and watch for optimizers that step later."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        else:
            self._note_optimizers_with_state()
        coverage = Coverage(self._objects, self._values())
        names = CallerNames(sys._getframe(1))  # noqa: SLF001 - the documented way to it
        found = self._untracked(coverage, names)
        if not any(each.kind == "untracked-average" for each in found):
            found += self._averages_by_hand(coverage, names)
        if not found and not self._stepped and register_step_hook is not None:
            found += self._accumulation(coverage, names)
        stepped = [each.optimizer for each in self._stepped.values()]
        self._forget_step()
        self._later = LaterSteps(stepped, lambda optimizer: self._note_step(optimizer, (), {}))
        return found

    def later_findings(self) -> list[Untracked]:
        """Return what is not tracked of a later step, the first one of an optimizer."""
        if self._later is not None:
            self._later.has_new = False
        coverage = Coverage(self._objects, self._values())
        names = CallerNames(sys._getframe(1))  # noqa: SLF001 - the documented way to it
        for identity, stepped in list(self._stepped.items()):
            if not stepped.optimizer.state and _is_remade(stepped, coverage):
                del self._stepped[identity]  # such as plain SGD that is made again in each epoch
        found = self._untracked(coverage, names)
        self._forget_step()
        return found

    def _forget_step(self) -> None:
        self._stepped, self._words, self._copies, self._gradients = {}, {}, None, None

    def _untracked(self, coverage: Coverage, names: CallerNames) -> list[Untracked]:
        found = list(self._untracked_optimizers(coverage, names))
        untracked = [each.optimizer for each in self._stepped.values() if self._is_missing(each, coverage)]
        found += self._unknown_parameters(coverage, names)
        others = list(self._untracked_others(coverage, names, untracked))
        if others:
            gc.collect()  # what only waits to be freed takes part in nothing
            others = list(self._untracked_others(coverage, names, untracked))
        return found + others

    # ------------------------------------------------------------------ optimizers

    def _note_step(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        scalers, frame = [], sys._getframe(1)  # noqa: SLF001 - as above
        where = next((place_of_frame(each) for each in user_frames(frame)), "")
        outer: Any = frame
        for _ in range(12):
            if outer is None:
                break
            if isinstance(scaler := outer.f_locals.get("self"), torch.amp.GradScaler):
                scalers.append(scaler)
            outer = outer.f_back
        self._stepped[id(optimizer)] = _Stepped(optimizer, where, scalers)

    def _note_optimizers_with_state(self) -> None:
        """Take an optimizer that has state for one that stepped: this torch does not tell."""
        for value in live_instances(lambda kind: issubclass(kind, torch.optim.Optimizer)):
            if value.state:
                self._stepped[id(value)] = _Stepped(value, "", [])

    def _is_missing(self, stepped: _Stepped, coverage: Coverage) -> bool:
        optimizer = stepped.optimizer
        if coverage.keeps(optimizer) or not any(map(coverage.keeps_parameter, parameters_of(optimizer))):
            return False
        inner = wrapped_optimizer(optimizer)
        groups = {id(group) for each in coverage.optimizers for group in each.param_groups}
        shares_groups = all(id(group) in groups for group in optimizer.param_groups)
        states = {id(each.state) for each in coverage.optimizers}
        has_own_state = bool(optimizer.state) and id(optimizer.state) not in states
        return has_own_state or not (shares_groups or (inner is not None and coverage.keeps(inner)))

    def _untracked_optimizers(self, coverage: Coverage, names: CallerNames) -> Iterator[Untracked]:
        labels = {id(parameter): name for name, parameter in named_parameters(self._objects)}
        for stepped in self._stepped.values():
            if self._is_missing(stepped, coverage):
                trained = [
                    each for each in parameters_of(stepped.optimizer) if coverage.keeps_parameter(each)
                ]
                first = labels.get(id(trained[0]), "a tracked parameter")
                more = f" and {len(trained) - 1} more" if len(trained) > 1 else ""
                what, is_remade = f"steps {first}{more} and is not tracked", _is_remade(stepped, coverage)
                finding = self._missing(
                    "untracked-optimizer", stepped.optimizer, names, where=stepped.where or None, what=what
                )
                yield _remade(finding) if is_remade else finding

    def _unknown_parameters(self, coverage: Coverage, names: CallerNames) -> Iterator[Untracked]:
        for optimizer in coverage.optimizers:
            unknown = [
                parameter
                for parameter in parameters_of(optimizer)
                if parameter.requires_grad and parameter.numel() and not coverage.keeps_tensor(parameter)
            ]
            owners = _owners(unknown, names)
            for owner, count in owners:
                yield self._missing(
                    "untracked-parameters",
                    owner.value,
                    names,
                    what=f"has {counted(count, 'parameter')} that {self._name_of(optimizer, names)} trains, "
                    "and is not tracked",
                )
            owned = {id(each) for owner, _ in owners for each in owner.value.parameters()}
            unstepped = self._unstepped(coverage) if unknown else {}
            for parameter in unknown:
                if id(parameter) not in owned:
                    yield self._lone_parameter(parameter, optimizer, names, unstepped)

    def _unstepped(self, coverage: Coverage) -> dict[str, torch.Tensor]:
        """Return the trainable parameters of the tracked modules that no tracked optimizer has, by name."""
        stepped = {id(each) for optimizer in coverage.optimizers for each in parameters_of(optimizer)}
        named = named_parameters(self._objects)
        return {name: each for name, each in named if each.requires_grad and id(each) not in stepped}

    def _lone_parameter(
        self,
        parameter: torch.Tensor,
        optimizer: torch.optim.Optimizer,
        names: CallerNames,
        unstepped: dict[str, torch.Tensor],
    ) -> Untracked:
        known = names.of(parameter)
        instead = next((name for name, each in unstepped.items() if each.shape == parameter.shape), None)
        if instead is None and known is None and parameter.grad is None:
            instead = next(iter(unstepped), None)
        if instead is not None:
            unstepped.pop(instead)
            return Untracked(
                "untracked-parameters",
                names.place,
                f"{self._name_of(optimizer, names)} has a parameter of shape {list(parameter.shape)} that "
                f"belongs to no tracked module, and no optimizer has {instead}",
                "make the optimizer after the model has all its parameters: it keeps those that it is given",
            )
        word, expression = (known.word, known.expression) if known else ("weight", "…")
        return Untracked(
            "untracked-parameters",
            known.where if known else names.place,
            f"{known.expression if known else 'a parameter'} of shape {list(parameter.shape)} is trained by "
            f"{self._name_of(optimizer, names)} and belongs to no tracked module",
            f'keep it: {names.session}.value("{word}", {expression}), or track the module that has it',
        )

    # ------------------------------------------------------------------ what belongs to them

    def _untracked_others(
        self, coverage: Coverage, names: CallerNames, untracked: list[torch.optim.Optimizer]
    ) -> Iterator[Untracked]:
        relevant = [*coverage.optimizers, *untracked]
        relevant_ids = set(map(id, relevant))
        used = {
            id(scaler)
            for stepped in self._stepped.values()
            if id(stepped.optimizer) in relevant_ids
            for scaler in stepped.scalers
        }
        has_gradients = self._gradients is not None and self._gradients.has_new(coverage)
        has_stepped = any(id(each) in self._stepped for each in relevant)
        inside: set[int] = set()
        found: list[tuple[Any, Untracked]] = []
        for value in live_candidates(known=[each.value for each in names]):
            if coverage.keeps(value):
                continue
            if (optimizer := is_scheduler_of(value, relevant_ids)) is not None:
                inside.update(_parts_of(value))
                what = f"sets the learning rate of {self._name_of(optimizer, names)} and is not tracked"
                found.append((value, self._missing("untracked-scheduler", value, names, what=what)))
            elif isinstance(value, torch.amp.GradScaler):
                is_known = names.of(value) is not None
                is_used = id(value) in used or (is_known and not has_stepped and has_gradients)
                if is_used and is_scaler_in_use(value):
                    what = "scales the loss of what is trained and is not tracked"
                    found.append((value, self._missing("untracked-scaler", value, names, what=what)))
            elif names.of(value) is not None and (model := average_of(value, coverage)) is not None:
                inside.update(_parts_of(value))
                named = next((n for n, each in self._objects.items() if model is each), "a tracked model")
                what = f"averages the parameters of {named} and is not tracked"
                found.append((value, self._missing("untracked-average", value, names, what=what)))
        yield from (finding for value, finding in found if id(value) not in inside)

    def _averages_by_hand(self, coverage: Coverage, names: CallerNames) -> Iterator[Untracked]:
        for known, model in self._copies.averages(coverage, names) if self._copies is not None else ():
            named = next(
                (n for n, each in self._objects.items() if unwrapped(each) is model), "a tracked model"
            )
            what = f"averages the parameters of {named} and is not tracked"
            if isinstance(known.value, Stateful):
                yield self._missing("untracked-average", known.value, names, what=what)
                continue
            box = f'{names.session}.value("{known.word}", {known.expression})'
            yield Untracked(
                "untracked-average",
                known.where,
                f"{known.expression} ({type(known.value).__name__}) {what}",
                f"keep it in {box}, and use and replace its .value",
            )

    def _accumulation(self, coverage: Coverage, names: CallerNames) -> Iterator[Untracked]:
        if any(isinstance(value, KeptGradients) for value in self._objects.values()):
            return
        known = [each.value for each in names]
        if self._gradients is not None and self._gradients.are_kept_for_later(coverage, known):
            name = self._name_of(coverage.optimizers[0], names)
            yield Untracked(
                MANUAL_ACCUMULATION,
                names.place,
                f"the first step is over, there are gradients, and {name} has not stepped: they seem to be "
                "accumulated over several batches, and gradients are in no checkpoint",
                f"say so: {names.session}.batches(loader, accumulate=k), and step the optimizer if "
                f"{names.session}.ends_step",
            )

    # ------------------------------------------------------------------ words

    def _missing(
        self, kind: str, value: Any, names: CallerNames, *, what: str, where: str | None = None
    ) -> Untracked:
        known = names.of(value)
        label = f"{known.expression} ({type(value).__name__})" if known else f"a {type(value).__name__}"
        place = where or (known.where if known else names.place)
        if not isinstance(value, Stateful):
            return Untracked(
                kind,
                place,
                f"{label} {what}",
                f"give it state_dict() and load_state_dict() and track it, or keep what it counts in "
                f"{names.session}.value(…)",
            )
        word = known.word if known else _word_of(type(value).__name__)
        word = word if word.isidentifier() else f"the_{word}"
        while self._words.setdefault(word, value) is not value or word in self._objects:
            word += "_"
        argument = f"{word}={known.expression if known else '…'}"
        return Untracked(
            kind, place, f"{label} {what}", f"add {names.session}.track({argument})", argument=argument
        )

    def _name_of(self, optimizer: torch.optim.Optimizer, names: CallerNames) -> str:
        tracked = next((name for name, each in self._objects.items() if each is optimizer), None)
        known = names.of(optimizer)
        return tracked or (known.expression if known else f"a {type(optimizer).__name__}")


def _is_remade(stepped: _Stepped, coverage: Coverage) -> bool:
    """Tell whether an optimizer takes the place of a tracked one: of its kind, with the same parameters."""
    own = set(map(id, parameters_of(stepped.optimizer)))
    return any(
        type(each) is type(stepped.optimizer) and own <= set(map(id, parameters_of(each)))
        for each in coverage.optimizers
    )


def _remade(finding: Untracked) -> Untracked:
    """Return a finding about an optimizer that takes the place of a tracked one: to track it is no way."""
    return replace(
        finding,
        detail=f"{finding.detail}: it was made again, and the one that is tracked has other state",
        hint="make the optimizer once, before the loop; to begin it again, use optimizer.state.clear() and "
        "set its param_groups",
        argument="",
    )


def _owners(parameters: list[torch.Tensor], names: CallerNames) -> list[tuple[Known, int]]:
    """Return the modules in the user's code that have these parameters, the largest share first."""
    left = set(map(id, parameters))
    modules = [known for known in names if isinstance(known.value, torch.nn.Module)]
    shares = [(known, {id(each) for each in known.value.parameters()}) for known in modules]
    owners: list[tuple[Known, int]] = []
    while left and shares:
        known, share = max(shares, key=lambda item: len(item[1] & left))
        if not share & left:
            break
        owners.append((known, len(share & left)))
        left -= share
    return owners


def _parts_of(value: Any) -> set[int]:
    """Return the identities of what an object holds directly, in lists too."""
    found: set[int] = set()
    for item in getattr(value, "__dict__", {}).values():
        found.add(id(item))
        if isinstance(item, list | tuple):
            found.update(map(id, item))
        elif isinstance(item, dict):
            found.update(map(id, item.values()))
    return found


def _word_of(name: str) -> str:
    if name.endswith("LR") or "Schedul" in name:
        return "scheduler"
    return "scaler" if "Scaler" in name else "average" if "Average" in name else "optimizer"
