"""Putting a checkpoint back: everything is decoded and checked first, and only then does anything change.

Modules and optimizers are compared with what is in the file, field by field. Objects with a
``load_state_dict`` of their own cannot be asked whether it would work; they go first, each with a copy of its
former state, so that one that refuses is put back together with those before it.
"""

from __future__ import annotations

import copy
import fnmatch
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from trainerd.errors import CorruptError, MismatchError
from trainerd.training.snapshot import TREE_FORMAT
from trainerd.training.tensors import decode_state
from trainerd.training.tracked import Objects, Stateful, unwrapped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class StateTree:
    """A checkpoint's state in memory, decoded. The same tree can be applied more than once."""

    def __init__(self, document: Any, tensors: dict[str, torch.Tensor]) -> None:
        if not isinstance(document, dict) or document.get("format") != TREE_FORMAT:
            raise CorruptError(f"the state tree is not of format {TREE_FORMAT}")
        self.objects: dict[str, Any] = {}
        for name, encoded in document["objects"].items():
            state = decode_state(encoded, tensors)
            if name in document.get("module_versions", {}):
                state = OrderedDict(state)
                state._metadata = decode_state(  # type: ignore[attr-defined]  # noqa: SLF001 - where torch looks for it
                    document["module_versions"][name], {}
                )
            self.objects[name] = state
        self.extra = {
            name: decode_state(encoded, tensors)
            for name, encoded in document.items()
            if name not in {"format", "objects", "module_versions"}
        }

    def apply(
        self,
        objects: Objects,
        *,
        source: str,
        strict: bool = True,
        only: Collection[str] | None = None,
        exclude: Collection[str] = (),
    ) -> None:
        """Put the state into the live objects: all of it or none of it.

        Args:
            objects: The live ones.
            source: Name of the checkpoint, for messages.
            strict: Refuse any difference; otherwise take what fits and leave the rest as it is.
            only: Patterns of objects, or of entries such as ``model.layer1.*``, to take; None takes all.
            exclude: Patterns to leave out.

        Raises:
            MismatchError: The state does not fit; nothing was changed.
        """
        states = dict(_selected(self.objects, only, exclude))
        is_partial = only is not None or bool(exclude)
        if not strict or is_partial:
            states = {
                name: _fitting(unwrapped(objects[name]), state)
                for name, state in states.items()
                if name in objects
            }
        differences = list(_differences(objects, states, is_partial=is_partial or not strict))
        if differences:
            raise MismatchError(
                f"{source} is sound but does not fit this program",
                differences,
                hint="change the program back, resume from another checkpoint, or load with strict=False",
            )
        _apply_all(objects, states, source=source, strict=strict and not is_partial)


def _selected(
    states: dict[str, Any], only: Collection[str] | None, exclude: Collection[str]
) -> Iterator[tuple[str, Any]]:
    def is_wanted(path: str) -> bool:
        wanted = only is None or any(_matches(path, pattern) for pattern in only)
        return wanted and not any(_matches(path, pattern) for pattern in exclude)

    for name, state in states.items():
        entries_matter = any("." in pattern for pattern in [*(only or ()), *exclude])
        if isinstance(state, dict) and entries_matter and name not in (only or ()):
            kept = OrderedDict((key, value) for key, value in state.items() if is_wanted(f"{name}.{key}"))
            if hasattr(state, "_metadata"):
                kept._metadata = state._metadata  # type: ignore[attr-defined]  # noqa: SLF001
            if kept:
                yield name, kept
        elif is_wanted(name):
            yield name, state


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern}.")


def _fitting(target: Stateful, state: Any) -> Any:
    """Leave out of a module's state what does not fit it."""
    if not isinstance(target, torch.nn.Module):
        return state
    live = target.state_dict()
    kept = OrderedDict(
        (key, value) for key, value in state.items() if key in live and _shape(live[key]) == _shape(value)
    )
    if hasattr(state, "_metadata"):
        kept._metadata = state._metadata  # type: ignore[attr-defined]  # noqa: SLF001
    return kept


def _differences(objects: Objects, states: dict[str, Any], *, is_partial: bool) -> Iterator[str]:
    for name in states:
        if name not in objects:
            yield f"{name}: in the checkpoint, not tracked by the program"
    for name, value in objects.items():
        if name not in states:
            if not is_partial:
                yield f"{name}: tracked by the program, not in the checkpoint"
            continue
        target = unwrapped(value)
        if isinstance(target, torch.nn.Module):
            yield from _module_differences(name, target, states[name], is_partial=is_partial)
        elif isinstance(target, torch.optim.Optimizer):
            yield from _optimizer_differences(name, target, states[name])


def _module_differences(name: str, module: torch.nn.Module, state: Any, *, is_partial: bool) -> Iterator[str]:
    live = module.state_dict()
    for key in live:
        if key not in state and not is_partial:
            yield f"{name}.{key}: missing in the checkpoint, here {_described(live[key])}"
    for key, saved in state.items():
        if key not in live:
            yield f"{name}.{key}: unexpected, in the checkpoint {_described(saved)}"
        elif _shape(saved) != _shape(live[key]) or (
            not is_partial and _described(saved) != _described(live[key])
        ):
            yield f"{name}.{key}: in the checkpoint {_described(saved)}, here {_described(live[key])}"


def _optimizer_differences(name: str, optimizer: torch.optim.Optimizer, state: Any) -> Iterator[str]:
    if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
        yield f"{name}: the checkpoint does not hold the state of an optimizer"
        return
    saved_groups, live_groups = state["param_groups"], optimizer.param_groups
    if len(saved_groups) != len(live_groups):
        yield f"{name}.param_groups: in the checkpoint {len(saved_groups)} groups, here {len(live_groups)}"
        return
    for index, (saved, live) in enumerate(zip(saved_groups, live_groups, strict=True)):
        place = f"{name}.param_groups[{index}]"
        if len(saved["params"]) != len(live["params"]):
            yield f"{place}: in the checkpoint {len(saved['params'])} parameters, here {len(live['params'])}"
        # A key that only this program knows is a newer torch's, and load_state_dict fills it in. One that only
        # the checkpoint knows may be a scheduler's. Both together are another optimizer.
        ours, theirs = optimizer.defaults.keys() - saved.keys(), saved.keys() - live.keys()
        if ours and theirs:
            yield f"{place}: in the checkpoint with {', '.join(sorted(theirs))}, here with {', '.join(sorted(ours))}"


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value)


def _apply_all(objects: Objects, states: dict[str, Any], *, source: str, strict: bool) -> None:
    targets = [(name, unwrapped(objects[name])) for name in states]
    targets.sort(key=lambda item: _is_checked_beforehand(item[1]))  # those that may refuse go first
    undo: list[tuple[Stateful, Any]] = []
    for name, target in targets:
        try:
            if not _is_checked_beforehand(target):
                undo.append((target, copy.deepcopy(target.state_dict())))
            _load(target, states[name], strict=strict)
        except Exception as error:
            for changed, former in reversed(undo):
                changed.load_state_dict(former)
            raise MismatchError(
                f"{source} is sound but {name} does not take its state",
                [f"{name}: {type(error).__name__}: {error}"],
                hint="nothing was changed",
            ) from error


def _is_checked_beforehand(target: Stateful) -> bool:
    if isinstance(target, torch.nn.Module):
        return all(
            type(module).load_state_dict is torch.nn.Module.load_state_dict
            and type(module).set_extra_state is torch.nn.Module.set_extra_state
            for module in target.modules()
        )
    return isinstance(target, torch.optim.Optimizer)


def _load(target: Stateful, state: Any, *, strict: bool) -> None:
    if isinstance(target, torch.nn.Module):
        target.load_state_dict(state, strict=strict)
        return
    # Others may keep the very objects that they are given, and training then changes them in place.
    target.load_state_dict(copy.deepcopy(state))
    if isinstance(target, torch.optim.Optimizer):
        _undo_casts(target, state)


def _undo_casts(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back state that torch cast to the parameter's dtype, such as fp32 moments of bf16 parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = [index for group in state["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        for key, saved in state["state"].get(index, {}).items():
            loaded = optimizer.state[parameter].get(key)
            if (
                isinstance(saved, torch.Tensor)
                and isinstance(loaded, torch.Tensor)
                and saved.dtype != loaded.dtype
            ):
                optimizer.state[parameter][key] = saved.to(device=loaded.device, copy=True)
