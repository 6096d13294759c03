"""Modules that training changes and that are in no checkpoint.

A loss with a running centre or a table of targets, a teacher whose batch statistics move, a target network, a
metric: what they hold is no parameter of a tracked optimizer, so nothing else shows that they belong to the
run.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainerd.contract.verdict import Reason
from trainerd.training.state.class_reads import reads_own
from trainerd.training.state.module_extras import ValueMark, own_values
from trainerd.training.state.tracked import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trainerd.training.state.audit_coverage import Coverage
    from trainerd.training.state.caller_names import CallerNames


@dataclass(frozen=True)
class _WatchedPart:
    """A part of a module that is not tracked.

    Attributes:
        part: The part, or the module itself.
        expression: What the script calls the module.
        prefix: Place of the part within the module, with a dot behind it; empty for the module itself.
        word: Identifier for the module.
        where: Where the script makes the module.
        marks: What the part held when it was last looked at.
    """

    part: weakref.ref[torch.nn.Module]
    expression: str
    prefix: str
    word: str
    where: str
    marks: dict[str, ValueMark]


class ModulesBeside:
    """Watches the modules that the script has names for and that are not tracked.

    Args:
        coverage: What is kept.
        names: Names of the script's code, before the first step.
    """

    def __init__(self, coverage: Coverage, names: CallerNames) -> None:
        self._session = names.session
        self._watched: list[_WatchedPart] = []
        seen: set[int] = set()
        for known in names:
            if not isinstance(known.value, torch.nn.Module):
                continue
            module: Any = unwrapped(known.value)
            for name, part in module.named_modules():
                if id(part) not in seen and not coverage.keeps(part):
                    seen.add(id(part))
                    prefix = f"{name}." if name else ""
                    marks = {place: ValueMark(value) for place, value in own_values(part).items()}
                    self._watched.append(
                        _WatchedPart(
                            weakref.ref(part), known.expression, prefix, known.word, known.where, marks
                        )
                    )

    def pass_over_metrics(self) -> None:
        """An epoch is over: a metric that was evaluated between its loops begins again in the next one."""
        for each in self._watched:
            part = each.part()
            if part is not None and _is_metric(part):
                each.marks.update({place: ValueMark(value) for place, value in own_values(part).items()})

    def reasons(self, coverage: Coverage, others: Iterable[Any] = ()) -> Iterator[tuple[str, Reason]]:
        """Yield each module that has changed since it was last looked at, once: its name, and the reason.

        Args:
            coverage: What is kept now.
            others: Objects that are saved apart from it, such as hooks.
        """
        changed: dict[str, tuple[_WatchedPart, str]] = {}
        saved = set(map(id, others))
        for each in self._watched:
            part = each.part()
            if part is None or id(part) in saved or coverage.keeps(part):
                continue
            for place, value in own_values(part).items():
                mark = each.marks.get(place)
                if mark is None or mark.is_empty:
                    each.marks[place] = ValueMark(value)  # a mask that is made when its size is known, say
                elif not (_is_passing(value, coverage) or mark.is_same(value)) and _is_read(part, place):
                    changed.setdefault(each.expression, (each, place))
        self._watched = [each for each in self._watched if each.expression not in changed]
        for expression, (each, place) in changed.items():
            word = each.word if each.word.isidentifier() else "module"
            yield (
                expression,
                Reason(
                    "untracked-module",
                    each.where,
                    f"training changes {expression}.{each.prefix}{place}, and {expression} is not tracked: a "
                    "resume begins with a new one",
                    f"{self._session}.track({word}={expression})",
                ),
            )


def _is_metric(part: torch.nn.Module) -> bool:
    return all(callable(getattr(part, name, None)) for name in ("reset", "update", "compute"))


def _is_passing(value: Any, coverage: Coverage) -> bool:
    """Tell whether a value is kept elsewhere, or hangs on the graph of the step that made it."""
    return isinstance(value, torch.Tensor) and (value.grad_fn is not None or coverage.keeps_tensor(value))


def _is_read(part: torch.nn.Module, name: str) -> bool:
    """Tell whether a module reads what it holds: an attribute may be there for a log alone."""
    return name not in part.__dict__ or reads_own(type(part), name)
