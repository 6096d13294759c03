"""Which part of a checkpoint is taken: whole objects, or single entries of modules, by pattern."""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from trainerd.errors import UserError
from trainerd.training.state.tracked import Objects, unwrapped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def selected_states(
    states: dict[str, Any], objects: Objects, *, only: Collection[str] | None, exclude: Collection[str]
) -> dict[str, Any]:
    """Return what is to be taken.

    A pattern is the name of an object, ``model``, or reaches into a module: ``model.layer1.*``, ``*.bias``.
    What it names, it names with everything below.

    Raises:
        UserError: A pattern matches nothing in the checkpoint: it is mistyped, or it reaches into what can
            only be taken as a whole.
    """
    for given, patterns in (("only", only or ()), ("exclude", exclude)):
        _check_patterns(states, objects, patterns, given)
    taken = {}
    for name, state in states.items():
        if _is_module(objects, name):
            kept = [key for key in state if _is_wanted(f"{name}.{key}", only, exclude)]
            if kept or (not state and _is_wanted(name, only, exclude)):
                taken[name] = entries_of(state, kept)
        elif _is_wanted(name, only, exclude):
            taken[name] = state
    return taken


def entries_of(state: Any, keys: Collection[str]) -> Any:
    """Return a module's state with these keys alone, and the versions that load_state_dict looks at."""
    kept = OrderedDict((key, state[key]) for key in keys)
    if hasattr(state, "_metadata"):
        kept._metadata = state._metadata  # type: ignore[attr-defined]  # noqa: SLF001 - where torch looks for it
    return kept


def _is_module(objects: Objects, name: str) -> bool:
    return name in objects and isinstance(unwrapped(objects[name]), torch.nn.Module)


def _is_wanted(path: str, only: Collection[str] | None, exclude: Collection[str]) -> bool:
    wanted = only is None or any(_matches(path, pattern) for pattern in only)
    return wanted and not any(_matches(path, pattern) for pattern in exclude)


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}.*")


def _paths(states: dict[str, Any], objects: Objects) -> Iterator[str]:
    for name, state in states.items():
        yield name
        if _is_module(objects, name):
            yield from (f"{name}.{key}" for key in state)


def _check_patterns(states: dict[str, Any], objects: Objects, patterns: Collection[str], given: str) -> None:
    if isinstance(patterns, str):
        raise UserError(
            f"{given}={patterns!r}: a list of patterns is meant", hint=f"write {given}=[{patterns!r}]"
        )
    paths = list(_paths(states, objects))
    for pattern in patterns:
        if not any(_matches(path, pattern) for path in paths):
            raise UserError(
                f"{given}: {pattern!r} matches nothing in the checkpoint",
                hint=f"it holds {', '.join(states) or 'nothing'}; patterns reach into modules only",
            )
