"""Optimizers matched to their parameters by name, never by position alone.

An optimizer's state dict numbers its parameters. A program that lists them in another order, as one that
makes a list of a set does, would give each the moments of another. So a checkpoint notes the name that every
parameter has in the tracked modules, and a resume puts the saved state into the order of the live optimizer.

Groups that were added after the optimizer was made (gradual unfreezing) are made again from the names of
their parameters. A script that then adds the same group once more, since it runs the head of the interrupted
epoch again, finds it there: the call does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from trainerd.errors import UserError
from trainerd.training.state.tracked import Objects, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Names = list[list[str | None]]
"""Of each parameter group, the name of each parameter; None for one that no tracked module has."""


def parameter_names(objects: Objects) -> dict[str, Names]:
    """Return the names of the parameters of every tracked optimizer, by the optimizer's name."""
    names = {id(parameter): name for name, parameter in named_parameters(objects)}
    return {
        optimizer_name: [[names.get(id(parameter)) for parameter in group["params"]] for group in groups]
        for optimizer_name, groups in _param_groups(objects)
    }


def groups_sign(optimizer: torch.optim.Optimizer) -> list[tuple[int, int]]:
    """Return the identity and the length of each group's list of parameters; -1 for what has no length."""
    lists = [group["params"] for group in optimizer.param_groups]
    return [(id(each), len(each) if hasattr(each, "__len__") else -1) for each in lists]


def check_groups(objects: Objects) -> None:
    """Check that each group of a tracked optimizer has a list of parameters.

    Raises:
        UserError: It has a generator, which gives its parameters once, or something else.
    """
    for name, groups in _param_groups(objects):
        for number, group in enumerate(groups):
            if not isinstance(group["params"], list | tuple):
                raise UserError(
                    f"{name}.param_groups[{number}]['params'] is a {type(group['params']).__qualname__}, not "
                    "a list of parameters: a step finds its parameters once, or not at all",
                    hint=f"{name}.param_groups[{number}]['params'] = list(model.parameters())",
                )


def _param_groups(objects: Objects) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, value in objects.items():
        if isinstance(value, torch.optim.Optimizer):
            yield name, value.param_groups


def named_parameters(objects: Objects) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield each parameter of the tracked modules under one name; one that has several keeps the first."""
    seen: set[int] = set()
    for object_name, value in objects.items():
        module = unwrapped(value)
        if isinstance(module, torch.nn.Module):
            for name, parameter in module.named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{object_name}.{name}", parameter


@dataclass
class Matching:
    """How the saved state of one optimizer fits the live one.

    Attributes:
        state: The saved state in the live order; groups to be added are its last ones.
        added: Names of the parameters of each group that the live optimizer lacks.
        differences: One line for each thing that does not fit; nothing else counts then.
        regrouped: Names of the parameters of all groups, if the live ones are to become these; else None.
    """

    state: dict[str, Any]
    added: list[list[str]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    regrouped: list[list[str]] | None = None


def match(
    name: str,
    state: dict[str, Any],
    saved: Names,
    live: Names,
    known: set[str],
    *,
    is_same_program: bool = False,
) -> Matching:
    """Match the saved groups of an optimizer with the live ones by the names of their parameters. Pure.

    Args:
        name: Name of the optimizer, for messages.
        state: Its saved state dict.
        saved: Names when it was saved.
        live: Names now.
        known: Names of all parameters of the tracked modules.
        is_same_program: Whether training began with the same groups here and where it was saved. What is
            saved is then what training has made of them, whatever it was.
    """
    groups = state["param_groups"]
    if saved == live:
        return Matching(state)
    if is_same_program and len(saved) == len(groups) and saved[: len(live)] != live:
        made = [[each for each in group if each in known] for group in saved]
        if made == saved:
            return Matching(state, regrouped=made)
    if _has_unnamed(saved) or _has_unnamed(live) or len(saved) != len(groups):
        return Matching(state, differences=_positional_differences(name, saved, live))
    left = list(range(len(saved)))
    ordered: list[dict[str, Any]] = []
    found: list[str] = []
    for index, group in enumerate(live):
        fitting = next((number for number in left if set(saved[number]) == set(group)), None)
        if fitting is None:
            found += _group_differences(f"{name}.param_groups[{index}]", saved, index, group)
        else:
            left.remove(fitting)
            ordered.append(_reordered(groups[fitting], saved[fitting], group))
    if found:
        return Matching(state, differences=found)
    taken = {each for group in live for each in group}
    added: list[list[str]] = []
    for number in left:
        names = [each for each in saved[number] if each is not None]
        for each in names:
            if each not in known:
                found.append(f"{name}.param_groups[{number}]: {each} in the checkpoint, not in this program")
            elif each in taken:
                found.append(f"{name}.param_groups[{number}]: {each} is in another group here")
        added.append(names)
        ordered.append(groups[number])
    return Matching({**state, "param_groups": ordered}, added, found)


def _has_unnamed(names: Names) -> bool:
    flat = [name for group in names for name in group]
    return None in flat or len(set(flat)) != len(flat)


def _positional_differences(name: str, saved: Names, live: Names) -> list[str]:
    """Return where names that are known on both sides differ, if positions are all there is to go by."""
    return [
        f"{name}.param_groups[{index}].params[{position}]: in the checkpoint {before}, here {now}"
        for index, (saved_group, live_group) in enumerate(zip(saved, live, strict=False))
        for position, (before, now) in enumerate(zip(saved_group, live_group, strict=False))
        if before is not None and now is not None and before != now
    ]


def _group_differences(place: str, saved: Names, index: int, live_group: list[str | None]) -> Iterator[str]:
    if index >= len(saved):
        yield f"{place}: here with {_listed(live_group)}, no such group in the checkpoint"
        return
    gone = [name for name in saved[index] if name not in live_group]
    new = [name for name in live_group if name not in saved[index]]
    if gone:
        yield f"{place}: {_listed(gone)} in the checkpoint, not here"
    if new:
        yield f"{place}: {_listed(new)} here, not in the checkpoint"


_SHOWN_MAX = 3


def _listed(names: list[str | None]) -> str:
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return ", ".join(map(str, names[:_SHOWN_MAX])) + more


def _reordered(group: dict[str, Any], saved: list[str | None], live: list[str | None]) -> dict[str, Any]:
    """Return a saved group with its parameters in the live order."""
    places = [saved.index(name) for name in live]
    ordered = {**group, "params": [group["params"][place] for place in places]}
    if "param_names" in group:
        ordered["param_names"] = [group["param_names"][place] for place in places]
    return ordered


def renumbered(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state with its parameters numbered in their order, as `state_dict` numbers them."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if sorted(numbers, key=str) != sorted(range(len(numbers)), key=str):
        return state  # an optimizer that numbers them in another way
    new = {number: place for place, number in enumerate(numbers)}
    return {
        **state,
        "state": {new.get(key, key): state["state"][key] for key in state["state"]},
        "param_groups": [
            {**group, "params": [new[number] for number in group["params"]]}
            for group in state["param_groups"]
        ],
    }


def add_groups(objects: Objects, name: str, matching: Matching) -> Callable[[], None]:
    """Add the groups that a live optimizer lacks; return what takes them away again."""
    optimizer = objects[name]
    assert isinstance(optimizer, torch.optim.Optimizer)
    parameters = dict(named_parameters(objects))
    count = len(optimizer.param_groups)
    saved_groups = matching.state["param_groups"][count:]
    for names, saved_group in zip(matching.added, saved_groups, strict=True):
        group = {**saved_group, "params": [parameters[each] for each in names]}
        if "param_names" in saved_group:
            group["params"] = list(zip(group.pop("param_names"), group["params"], strict=True))
        optimizer.add_param_group(group)
    if matching.added:
        _expect_again(optimizer, optimizer.param_groups[count:])

    def remove() -> None:
        del optimizer.param_groups[count:]
        optimizer.__dict__.pop("add_param_group", None)

    return remove


def regroup(objects: Objects, name: str, matching: Matching) -> Callable[[], None]:
    """Give a live optimizer the groups that training had made of its own; return what undoes that."""
    optimizer = objects[name]
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert matching.regrouped is not None
    parameters = dict(named_parameters(objects))
    groups, saved_groups = optimizer.param_groups, matching.state["param_groups"]
    former = [(group, group["params"]) for group in groups]
    count = len(groups)
    for number, names in enumerate(matching.regrouped):
        if number >= count:
            groups.append({**saved_groups[number]})
        groups[number]["params"] = [parameters[each] for each in names]
    del groups[len(matching.regrouped) :]
    if groups[count:]:
        _expect_again(optimizer, groups[count:])

    def undo() -> None:
        groups[:] = [group for group, _ in former]
        for group, own in former:
            group["params"] = own
        optimizer.__dict__.pop("add_param_group", None)

    return undo


def _expect_again(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """Have calls that add the very same groups once more do nothing."""
    expected = [{id(parameter) for parameter in group["params"]} for group in groups]

    def add_param_group(param_group: dict[str, Any]) -> None:
        given = param_group["params"]
        given = [given] if isinstance(given, torch.Tensor) else list(given)
        plain = [each[1] if isinstance(each, tuple) else each for each in given]
        identities = {id(parameter) for parameter in plain}
        if identities in expected:
            expected.remove(identities)
            if not expected:
                optimizer.__dict__.pop("add_param_group", None)
            return
        type(optimizer).add_param_group(optimizer, {**param_group, "params": given})

    optimizer.add_param_group = add_param_group  # type: ignore[method-assign]
