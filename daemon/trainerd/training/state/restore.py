"""Putting a checkpoint back: everything is decoded and checked first, and only then does anything change.

Modules and optimizers are compared with what is in the file, field by field. Objects with a
``load_state_dict`` of their own cannot be asked whether it would work; they go first, each with a copy of its
former state, so that one that refuses is put back together with those before it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.errors import CorruptError, MismatchError
from trainerd.training.state.already_restored import is_already_restored
from trainerd.training.state.copied_state import copied_state
from trainerd.training.state.fitting import differences, fitting_states, is_stock_state
from trainerd.training.state.in_place import on_devices
from trainerd.training.state.objects import (
    CLASSES,
    FIRST_PARAMETER_NAMES,
    MODULE_CHANGES,
    OBJECT_DEVICES,
    PARAMETER_NAMES,
    TrackedObjects,
)
from trainerd.training.state.optimizer_names import (
    Matching,
    Names,
    add_groups,
    match,
    named_parameters,
    parameter_names,
    regroup,
    renumbered,
)
from trainerd.training.state.other_hardware import is_other_scaler, loadable_groups, other_scalers
from trainerd.training.state.selection import selected_states
from trainerd.training.state.shards import placed_states
from trainerd.training.state.snapshot import TREE_FORMAT
from trainerd.training.state.tensor_decoding import decode_state
from trainerd.training.state.tracked import Objects, Stateful, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

NOT_FITTING_HINT: Final = "change the program back, resume from another checkpoint, or load with strict=False"
_OWN: Final = frozenset(
    {
        "format", "objects", "module_versions", CLASSES, PARAMETER_NAMES, FIRST_PARAMETER_NAMES,
        MODULE_CHANGES, OBJECT_DEVICES,
    }
)  # fmt: skip
_SHOWN_MAX: Final = 10
_LOAD_HOOKS: Final = ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


class StateTree:
    """A checkpoint's state in memory, decoded. The same tree can be applied more than once."""

    def __init__(self, document: Any, tensors: dict[str, torch.Tensor]) -> None:
        if not isinstance(document, dict) or document.get("format") != TREE_FORMAT:
            raise CorruptError(f"the state tree is not of format {TREE_FORMAT}")
        self.objects: dict[str, Any] = {}
        self.modules = tuple(document.get("module_versions", {}))
        self.classes: dict[str, str] = document.get(CLASSES, {})
        self.parameter_names: dict[str, Names] = document.get(PARAMETER_NAMES, {})
        self.first_names: dict[str, Names] = document.get(FIRST_PARAMETER_NAMES, {})
        self.module_changes = decode_state(document.get(MODULE_CHANGES, {}), tensors)
        self._devices: dict[str, Any] = decode_state(document.get(OBJECT_DEVICES, {}), {})
        for name, encoded in document["objects"].items():
            state = decode_state(encoded, tensors)
            if name in self.modules:
                state = OrderedDict(state)
                state._metadata = decode_state(  # type: ignore[attr-defined]  # noqa: SLF001 - where torch looks for it
                    document["module_versions"][name], {}
                )
            self.objects[name] = state
        self.extra = {
            name: decode_state(encoded, tensors) for name, encoded in document.items() if name not in _OWN
        }

    def apply(
        self,
        objects: Objects,
        *,
        source: str,
        strict: bool = True,
        only: Collection[str] | None = None,
        exclude: Collection[str] = (),
        was_restored: bool = False,
    ) -> None:
        """Put the state into the live objects: all of it or none of it.

        Args:
            objects: The live ones.
            source: Name of the checkpoint, for messages.
            strict: Refuse any difference in what is to be taken; otherwise take what fits, leave the rest as
                it is, and say in a warning what that was.
            only: Patterns of objects, or of entries such as ``model.layer1.*``, to take; None takes all.
            exclude: Patterns to leave out.
            was_restored: Whether all of it was put back before. What has not changed since is let be.

        Raises:
            MismatchError: The state does not fit; nothing was changed.
            UserError: A pattern matches nothing.
        """
        is_partial = only is not None or bool(exclude) or not strict
        states = self.objects
        if only is not None or exclude:
            states = selected_states(states, objects, only=only, exclude=exclude)
        matchings = self._matchings(objects, states)
        states = {**states, **{name: matching.state for name, matching in matchings.items()}}
        if not strict:
            states, left_out = fitting_states(objects, states)
            if left_out:
                warnings.warn(f"trainerd: {source}: left unchanged:\n{_shortened(left_out)}", stacklevel=3)
        with _added_groups(objects, {name: matchings[name] for name in states if name in matchings}) as keep:
            states = placed_states(objects, states)
            if strict:
                self._check(objects, states, matchings, source=source, is_partial=is_partial)
            loaded = states
            if was_restored:
                loaded = {name: each for name, each in states.items() if not _is_back(objects[name], each)}
            _apply_all(objects, loaded, self._devices, source=source, strict=not is_partial)
            keep()
        if isinstance(objects, TrackedObjects) and not is_partial:
            objects.put_back(self.module_changes)

    def check(self, objects: Objects, *, source: str) -> None:
        """Compare the whole state with the live objects, as far as these can be asked, and change nothing.

        Raises:
            MismatchError: It does not fit.
            WholeNeededError: It is a part of a state of which these hold another part.
        """
        matchings = self._matchings(objects, self.objects)
        states = {**self.objects, **{name: matching.state for name, matching in matchings.items()}}
        with _added_groups(objects, matchings):
            self._check(objects, placed_states(objects, states), matchings, source=source, is_partial=False)

    def states_for(self, objects: Objects) -> dict[str, Any]:
        """Return the state of each object as it should be once the whole tree was applied to `objects`."""
        matchings = self._matchings(objects, self.objects)
        kept = {name: scaler.state_dict() for name, scaler in other_scalers(objects, self.objects).items()}
        states = {
            **self.objects,
            **{name: renumbered(matching.state) for name, matching in matchings.items()},
            **kept,
        }
        return {
            name: loadable_groups(unwrapped(objects[name]), state) if name in objects else state
            for name, state in states.items()
        }

    def _matchings(self, objects: Objects, states: dict[str, Any]) -> dict[str, Matching]:
        """Match the optimizers among `states` with the live ones by the names of their parameters."""
        live = parameter_names(objects)
        known = {name for name, _ in named_parameters(objects)}
        began = objects.first_names if isinstance(objects, TrackedObjects) else {}
        return {
            name: match(
                name,
                state,
                saved := self.parameter_names[name],
                live[name],
                known,
                is_same_program=began.get(name) == self.first_names.get(name, saved),
            )
            for name, state in states.items()
            if name in live and name in self.parameter_names and is_stock_state(state)
        }

    def _check(
        self,
        objects: Objects,
        states: dict[str, Any],
        matchings: dict[str, Matching],
        *,
        source: str,
        is_partial: bool,
    ) -> None:
        by_name = [line for matching in matchings.values() for line in matching.differences]
        found = by_name or list(differences(objects, states, classes=self.classes, is_partial=is_partial))
        if found:
            raise MismatchError(
                f"{source} is sound but does not fit this program",
                found,
                hint=NOT_FITTING_HINT,
            )


@contextlib.contextmanager
def _added_groups(objects: Objects, matchings: dict[str, Matching]) -> Iterator[Callable[[], object]]:
    """Add the groups that live optimizers lack, and take over those that training has made.

    Undo it at the end, unless what is yielded was called.
    """
    with contextlib.ExitStack() as undo:
        for name, matching in matchings.items():
            if matching.differences:
                continue
            if matching.regrouped is not None:
                undo.callback(regroup(objects, name, matching))
            elif matching.added:
                undo.callback(add_groups(objects, name, matching))
        yield undo.pop_all


def _shortened(lines: list[str]) -> str:
    more = [f"and {len(lines) - _SHOWN_MAX} more"] if len(lines) > _SHOWN_MAX else []
    return "\n".join(f"    {line}" for line in [*lines[:_SHOWN_MAX], *more])


def _apply_all(
    objects: Objects, states: dict[str, Any], devices: dict[str, Any], *, source: str, strict: bool
) -> None:
    targets = [(name, unwrapped(objects[name])) for name in states]
    targets.sort(key=lambda item: _certainty(item[1]))
    undo: list[tuple[str, Stateful, Any]] = []
    for name, target in targets:
        try:
            undo.append((name, target, _former_state(target)))
            _load(target, states[name], devices.get(name, {}), strict=strict)
        except Exception as error:
            stuck = _put_back(undo)
            raise MismatchError(
                f"{source} is sound but {name} does not take its state",
                [f"{name}: {type(error).__name__}: {error}"],
                hint=f"{', '.join(stuck)} could not be put back as before"
                if stuck
                else "nothing was changed",
            ) from error


def _is_back(target: Any, state: Any) -> bool:
    target = unwrapped(target)
    return not is_other_scaler(target, state) and is_already_restored(target, loadable_groups(target, state))


def _certainty(target: Stateful) -> int:
    """Rank by how sure it is that loading works once the fields were compared: the least sure goes first."""
    if isinstance(target, torch.nn.Module):
        return 2 if all(_is_loaded_by_torch(module) for module in target.modules()) else 0
    is_plain = (
        isinstance(target, torch.optim.Optimizer)
        and type(target).load_state_dict is torch.optim.Optimizer.load_state_dict
    )
    return 1 if is_plain else 0


def _is_loaded_by_torch(module: torch.nn.Module) -> bool:
    """Tell whether nothing but torch's own code loads the state of a module.

    Hooks and overrides are found under private names. Where torch has none of that name, the answer is no:
    the module is then loaded like any other object, with a copy of its former state.
    """
    kind = type(module)
    hooks = [getattr(module, name, None) for name in _LOAD_HOOKS]
    load_own = getattr(kind, "_load_from_state_dict", None)
    return (
        all(found is not None and not found for found in hooks)
        and kind.load_state_dict is torch.nn.Module.load_state_dict
        and kind.set_extra_state is torch.nn.Module.set_extra_state
        and load_own is not None
        and load_own.__module__.partition(".")[0] == "torch"
    )


def _former_state(target: Stateful) -> Any:
    """Return what puts `target` back; None for a module that nothing can stop half-way."""
    certainty = _certainty(target)
    if certainty == 1:
        return (
            target.state_dict()
        )  # loading replaces the tensors of an optimizer and leaves the former ones alone
    return copied_state(target.state_dict()) if certainty == 0 else None


def _put_back(undo: list[tuple[str, Stateful, Any]]) -> list[str]:
    stuck = []
    for name, target, former in reversed(undo):
        try:
            if former is not None:
                target.load_state_dict(former)
        except Exception:  # noqa: BLE001 - the others are put back all the same, and the message says which was not
            stuck.append(name)
    return stuck


def _load(target: Stateful, state: Any, devices: dict[str, Any], *, strict: bool) -> None:
    if isinstance(target, torch.nn.Module):
        target.load_state_dict(state, strict=strict)
        return
    if is_other_scaler(target, state):
        return  # the resume says so
    state = loadable_groups(target, state)
    # Others may keep the very objects that they are given, and training then changes them in place.
    target.load_state_dict(on_devices(copied_state(state), devices))
    if isinstance(target, torch.optim.Optimizer) and _certainty(target) == 1:
        _undo_casts(target, state)


def _undo_casts(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back state that torch cast to the parameter's dtype, such as fp32 moments of bf16 parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = [index for group in state["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        if index in state["state"]:
            optimizer.state[parameter] = _as_saved(optimizer.state[parameter], state["state"][index])


def _as_saved(loaded: Any, saved: Any) -> Any:
    if isinstance(saved, torch.Tensor) and isinstance(loaded, torch.Tensor):
        return loaded if saved.dtype == loaded.dtype else saved.to(device=loaded.device, copy=True)
    if isinstance(saved, dict) and isinstance(loaded, dict):
        return {key: _as_saved(value, saved[key]) if key in saved else value for key, value in loaded.items()}
    if type(saved) in {list, tuple} and type(loaded) is type(saved) and len(saved) == len(loaded):
        return type(saved)(_as_saved(*pair) for pair in zip(loaded, saved, strict=True))
    return loaded
