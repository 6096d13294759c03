"""Plain objects that training changes and that are in no checkpoint.

A memory bank, a replay buffer, an environment, a controller: an object of a class that the script imports from
another file of the user's, and that is not tracked. Those of the script's own classes are found in its source.
And what a tracked module keeps in an attribute of a kind that its checkpoint does not hold: a deque, a set, an
object.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.verdict import Reason
from trainerd.training.data.attribute_marks import mark_of
from trainerd.training.data.found_generators import is_library
from trainerd.training.state.class_reads import reads_own
from trainerd.training.state.module_extras import own_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.state.audit_coverage import Coverage
    from trainerd.training.state.caller_names import CallerNames

_SITES: Final = ("/site-packages/", "/dist-packages/")
_SHOWS: Final = re.compile(r"(Meter|Metric|Logg|Timer|Watch|Progress|Bar$|Writer|Record|Visual|Histor|Monitor|Print)")
"""Classes with such names show how training goes; those that the script reports from are found in its source."""
_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS: Final = (list, tuple, dict, set, frozenset, deque)
_OF_TORCH: Final = frozenset(vars(torch.nn.Module()))
_SAMPLE: Final = 16
_ATTRIBUTES_MAX: Final = 64
_OBJECTS_MAX: Final = 64
_DEPTH_MAX: Final = 4


@dataclass(frozen=True)
class _Watched:
    """An object, and what some of its attributes held before the first step."""

    value: weakref.ref[Any]
    expression: str
    where: str
    is_of_module: bool
    marks: dict[str, str]


class ObjectsBeside:
    """Watches plain objects that are not tracked, and what tracked modules hold beside their state.

    Args:
        coverage: What is kept.
        names: Names of the script's code, before the first step.
    """

    def __init__(self, coverage: Coverage, names: CallerNames) -> None:
        self._session = names.session
        self._watched: list[_Watched] = []
        for module in coverage.modules:
            known = names.of(module)
            expression = known.expression if known else type(module).__name__
            for name, part in module.named_modules():
                place = f"{expression}.{name}" if name else expression
                where = known.where if known else names.place
                self._watch(part, _beside_state(part), place, where, is_of_module=True)
        for known in names:
            if len(self._watched) >= _OBJECTS_MAX:
                break
            if _is_own(known.value, known.file) and not coverage.keeps(known.value):
                self._watch(known.value, _data_of(known.value), known.expression, known.where)

    def _watch(
        self, value: Any, attributes: dict[str, Any], expression: str, where: str, *, is_of_module: bool = False
    ) -> None:
        if attributes:
            marks = {name: mark_of(each) for name, each in attributes.items()}
            with contextlib.suppress(TypeError):  # of a class with __slots__
                self._watched.append(_Watched(weakref.ref(value), expression, where, is_of_module, marks))

    def reasons(self, coverage: Coverage) -> Iterator[Reason]:
        """Yield a reason for each object that has changed since the first step began, once.

        Args:
            coverage: What is kept now.
        """
        left: list[_Watched] = []
        for each in self._watched:
            value = each.value()
            if value is None or (not each.is_of_module and coverage.keeps(value)):
                continue
            attributes = _beside_state(value) if each.is_of_module else _data_of(value)
            changed = next(
                (
                    name
                    for name, mark in each.marks.items()
                    if name in attributes and mark_of(attributes[name]) != mark and reads_own(type(value), name)
                ),
                None,
            )
            if changed is None:
                left.append(each)
            else:
                yield self._reason(each, changed, type(attributes[changed]).__name__)
        self._watched = left

    def _reason(self, watched: _Watched, name: str, kind: str) -> Reason:
        whole = f"{watched.expression}.{name}"
        if watched.is_of_module:
            return Reason(
                "module-attribute",
                watched.where,
                f"training changes {whole}, and a checkpoint of a module holds no {kind}: a resume begins with a "
                "new one",
                "keep it in a tensor, a number, a list or a dict, or give the module get_extra_state() and "
                "set_extra_state()",
            )
        last = watched.expression.rpartition(".")[2]
        word = last if last.isidentifier() else "kept"
        return Reason(
            "untracked-object",
            watched.where,
            f"training changes {whole}, and {watched.expression} is not tracked: a resume begins with a new one",
            f"give its class state_dict() and load_state_dict(), and write "
            f"{self._session}.track({word}={watched.expression})",
        )


def _is_own(value: Any, script: str) -> bool:
    """Tell whether an object is of a class of the user's, from another file than the script."""
    kind = type(value)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return (
        isinstance(file, str)
        and file != script
        and not is_library(kind.__module__)
        and not any(site in file for site in _SITES)
        and not isinstance(value, torch.nn.Module | torch.utils.data.Dataset | torch.utils.data.Sampler)
        and not isinstance(value, torch.utils.data.DataLoader | torch.optim.Optimizer)
        and _SHOWS.search(kind.__name__) is None
    )


def _data_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that hold data; objects within it have names of their own."""
    items = list(getattr(value, "__dict__", {}).items())[:_ATTRIBUTES_MAX]
    return {name: each for name, each in items if _is_data(each, 0)}


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
        if name not in held and name not in _OF_TORCH and (_is_data(each, 0) or _is_object_of_data(each))
    }


def _is_data(value: Any, depth: int) -> bool:
    if isinstance(value, _SCALARS) or type(value) is torch.Tensor or type(value).__module__ == "numpy":
        return True
    if not isinstance(value, _CONTAINERS) or depth >= _DEPTH_MAX:
        return False
    parts = value.values() if isinstance(value, dict) else value
    return all(_is_data(each, depth + 1) for each in itertools.islice(parts, _SAMPLE))


def _is_object_of_data(value: Any) -> bool:
    attributes = getattr(value, "__dict__", None)
    return (
        isinstance(attributes, dict)
        and not isinstance(value, type)
        and not is_library(type(value).__module__)
        and bool(attributes)
        and all(_is_data(each, 0) for each in attributes.values())
    )

