"""Plain objects that training changes and that are in no checkpoint.

A memory bank, a replay buffer, an environment, a controller: an object of a class that the script imports
from another file of the user's, and that is not tracked. A framework object or simulator of an installed
package. Those of the script's own classes are found in its source. Variables that a closure counts in. And
what a tracked module keeps in an attribute of a kind that its checkpoint does not hold: a deque, a set, an
object.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import itertools
import re
import sys
import types
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from trainerd.contract.verdict import Reason
from trainerd.training.data.attribute_marks import mark_of
from trainerd.training.data.foreign_drivers import is_driver, is_simulator
from trainerd.training.data.found_generators import is_installed, is_library, is_of_user
from trainerd.training.state.class_reads import reads_own
from trainerd.training.state.live_objects import live_instances
from trainerd.training.state.module_extras import own_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trainerd.training.state.audit_coverage import Coverage
    from trainerd.training.state.caller_names import CallerNames, Known

_SHOWS: Final = re.compile(
    r"(Meter|Metric|Logg|Timer|Watch|Progress|Bar$|Writer|Record|Visual|Histor|Monitor|Print|Profil|"
    r"W(and|AND)[Bb]|Tensor[Bb]oard|Throughput)"
)
"""Classes with such names show how training goes. What the script reports from is found in its source."""
_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS: Final = (list, tuple, dict, set, frozenset, deque)
_OF_TORCH: Final = frozenset(vars(torch.nn.Module()))
_SAMPLE: Final = 16
_ATTRIBUTES_MAX: Final = 64
_OBJECTS_MAX: Final = 64
_DEPTH_MAX: Final = 4
_NODES_MAX: Final = 4096


@dataclass(frozen=True)
class _WatchedObject:
    """An object, and what some of its attributes, or variables of a closure, held before the first step."""

    value: weakref.ref[Any]
    expression: str
    where: str
    read: Callable[[Any], dict[str, Any]]
    marks: dict[str, str]


class ObjectsBeside:
    """Watches plain objects that are not tracked, and what tracked modules hold beside their state.

    Args:
        coverage: What is kept.
        names: Names of the script's code, before the first step.
    """

    def __init__(self, coverage: Coverage, names: CallerNames) -> None:
        self._session, self._place = names.session, names.place
        self._watched: list[_WatchedObject] = []
        for module in coverage.modules:
            known = names.of(module)
            expression = known.expression if known else type(module).__name__
            for name, part in module.named_modules():
                place = f"{expression}.{name}" if name else expression
                self._watch(part, place, known, _beside_state)
        for known in names:
            if len(self._watched) >= _OBJECTS_MAX:
                break
            if isinstance(known.value, types.FunctionType):
                file = known.value.__code__.co_filename
                if not is_library(known.value.__module__) and not is_installed(file):
                    self._watch(known.value, known.expression, known, _written_variables)
            elif not coverage.keeps(known.value) and (
                _is_own(known.value, "" if known.prefix else known.file)
                or is_driver(known.value, coverage)
                or is_simulator(known.value)
            ):
                self._watch(known.value, known.expression, known, _data_of)

    def _watch(
        self, value: Any, expression: str, known: Known | None, read: Callable[[Any], dict[str, Any]]
    ) -> None:
        if attributes := read(value):
            where = known.where if known is not None else self._place
            marks = {name: mark_of(each) for name, each in attributes.items()}
            with contextlib.suppress(TypeError):  # of a class with __slots__
                self._watched.append(_WatchedObject(weakref.ref(value), expression, where, read, marks))

    def reasons(self, coverage: Coverage, others: Iterable[Any] = ()) -> Iterator[tuple[str, Reason]]:
        """Yield each object that has changed since the first step began, once: its name, and the reason.

        Args:
            coverage: What is kept now.
            others: Objects that are saved apart from it, such as hooks.
        """
        left: list[_WatchedObject] = []
        changed: list[tuple[_WatchedObject, Any, str]] = []
        for each in self._watched:
            value = each.value()
            if value is None or (coverage.keeps(value) and each.read is not _beside_state):
                continue
            if (name := _changed(each, value)) is None:
                left.append(each)
            else:
                changed.append((each, value, name))
        self._watched = left
        # What loading consists of is saved with its loop, or is named there.
        kept = identities_below([*others, *live_instances(_is_of_loading)], _parts) if changed else set()
        for each, value, name in changed:
            if id(value) not in kept:
                is_part = each.read is _beside_state  # an attribute of its own
                yield "" if is_part else each.expression, self._reason(each, value, name)

    def _reason(self, watched: _WatchedObject, value: Any, name: str) -> Reason:
        whole, forgotten = f"{watched.expression}.{name}", "a resume begins with a new one"
        last = watched.expression.rpartition(".")[2]
        word = last if last.isidentifier() else "kept"
        if watched.read is _beside_state:
            kind = type(_beside_state(value)[name]).__name__
            return Reason(
                "module-attribute",
                watched.where,
                f"training changes {whole}, and a checkpoint of a module holds no {kind} of this form: "
                f"{forgotten}",
                "keep it in a tensor, a number, a list or a dict, or give the module get_extra_state() and "
                "set_extra_state()",
            )
        if watched.read is _written_variables:
            return Reason(
                "untracked-variable",
                watched.where,
                f"training changes {name}, a variable of the function {watched.expression}, and it is in no "
                f"checkpoint: {forgotten}",
                f'{name} = {self._session}.value("{name}", …), set in the function through {name}.value',
            )
        hint = (
            f"give its class state_dict() and load_state_dict(), and write "
            f"{self._session}.track({word}={watched.expression})"
        )
        if not is_of_user(type(value).__module__):
            hint = (
                f"write a class that keeps {watched.expression} and whose state_dict() and load_state_dict() "
                f"save and restore what goes on in it, and track an object of it"
            )
        return Reason(
            "untracked-object",
            watched.where,
            f"training changes {whole}, and {watched.expression} is not tracked: {forgotten}",
            hint,
        )


def _changed(watched: _WatchedObject, value: Any) -> str | None:
    """Return the first attribute that has changed and that its class reads, or a variable of a closure."""
    attributes = watched.read(value)
    is_function = watched.read is _written_variables
    return next(
        (
            name
            for name, mark in watched.marks.items()
            if name in attributes
            and mark_of(attributes[name]) != mark
            and (is_function or reads_own(type(value), name))
        ),
        None,
    )


def _written_variables(function: types.FunctionType) -> dict[str, Any]:
    """Return the ``nonlocal`` variables that a function assigns and that hold data."""
    if not function.__code__.co_freevars:
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    written = {each.argval for each in dis.get_instructions(function) if each.opname == "STORE_DEREF"}
    found: dict[str, Any] = {}
    for name, cell in cells:
        with contextlib.suppress(ValueError):  # not assigned yet
            if name in written and is_data(cell.cell_contents):
                found[name] = cell.cell_contents
    return found


def _is_of_loading(kind: type) -> bool:
    return issubclass(kind, Dataset | Sampler | DataLoader)


def identities_below(
    roots: Iterable[Any], parts: Callable[[Any], list[Any]], *, depth: int = _DEPTH_MAX
) -> set[int]:
    """Return the identities of objects, and of what hangs on them.

    Args:
        roots: The objects.
        parts: Returns what hangs on an object directly.
        depth: How many levels there are, that of the objects included.
    """
    seen: set[int] = set()
    level = list(roots)
    for _ in range(depth):
        level = [each for each in level if id(each) not in seen][:_NODES_MAX]
        seen.update(map(id, level))
        level = [part for each in level for part in parts(each)]
    return seen


def _parts(value: Any) -> list[Any]:
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        return cells + [value.__globals__.get(name) for name in value.__code__.co_names]
    if isinstance(value, type | types.ModuleType):
        return []
    if isinstance(value, list | tuple):
        return list(value[:_SAMPLE])
    if isinstance(value, dict):
        return list(itertools.islice(value.values(), _SAMPLE))
    return list(getattr(value, "__dict__", {}).values())


def _is_own(value: Any, script: str) -> bool:
    """Tell whether an object is of a class of the user's, from another file than the script."""
    kind = type(value)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return (
        isinstance(file, str)
        and kind.__module__ != "__main__"
        and file != script
        and is_of_user(kind.__module__)
        and not _is_of_loading(kind)
        and not issubclass(kind, torch.nn.Module | torch.optim.Optimizer)
        and not hasattr(kind, "__iter__")  # a loader, whose state or numbers are saved with its loop
        and _SHOWS.search(kind.__name__) is None
    )


def _data_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that hold data; objects within it have names of their own."""
    items = list(getattr(value, "__dict__", {}).items())[:_ATTRIBUTES_MAX]
    return {name: each for name, each in items if is_data(each)}


def _beside_state(module: torch.nn.Module) -> dict[str, Any]:
    """Return the attributes of a tracked module that hold data and that no checkpoint of it holds."""
    plain = torch.nn.Module
    kind = type(module)
    if kind.get_extra_state is not plain.get_extra_state or kind.state_dict is not plain.state_dict:
        return {}
    held = own_values(module)
    return {
        name: each
        for name, each in list(vars(module).items())
        if name not in held and name not in _OF_TORCH and (is_data(each) or _is_object_of_data(each))
    }


def is_data(value: Any, depth: int = 0) -> bool:
    """Tell whether a value consists of numbers, texts, tensors, arrays and containers of these alone."""
    if isinstance(value, _SCALARS) or type(value) is torch.Tensor or type(value).__module__ == "numpy":
        return True
    if not isinstance(value, _CONTAINERS) or depth >= _DEPTH_MAX:
        return False
    parts = itertools.chain.from_iterable(value.items()) if isinstance(value, dict) else value
    return all(is_data(each, depth + 1) for each in itertools.islice(parts, 2 * _SAMPLE))


def _is_object_of_data(value: Any) -> bool:
    attributes = getattr(value, "__dict__", None)
    return (
        isinstance(attributes, dict)
        and not isinstance(value, type)
        and not is_library(type(value).__module__)
        and bool(attributes)
        and all(is_data(each) for each in attributes.values())
    )
