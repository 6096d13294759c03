"""Averages of a tracked model that a script keeps by hand: a copy of the model, or a list or dict of tensors.

Nothing in their class tells them. The first step does: the values of such a copy move on the line from
what they were towards the parameters after the step, those of one tensor by the same fraction. A buffer that
a script fills with gradients or with a plain copy of the parameters does not.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.state.audit_coverage import memory_of
from trainerd.training.state.combinations import on_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.state.audit_coverage import Coverage
    from trainerd.training.state.caller_names import CallerNames, Known

_SAMPLES: Final = 3
"""How many tensors of a copy are looked at: the smallest ones."""
_ELEMENTS_MAX: Final = 1 << 16
_COPIES_MAX: Final = 64
_BESIDE_MAX: Final = 16
"""Items of a container besides the tensors of a copy."""
_ROUNDINGS: Final = 4
_FRACTION_MIN: Final = 1e-7
_FRACTION_MAX: Final = 0.9999
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class _Copy:
    """Something with tensors of the shapes that a tracked module has, before the first step.

    Attributes:
        model: The module.
        former: Values of some of the tensors, by their number.
    """

    model: torch.nn.Module
    former: dict[int, torch.Tensor]


class CopiesBefore:
    """The copies of tracked modules that the script has names for, before a step.

    Args:
        coverage: What is kept.
        names: Names of the script's code.
    """

    def __init__(self, coverage: Coverage, names: CallerNames) -> None:
        self._copies: dict[str, _Copy] = {}
        tensors_max = _tensors_max(coverage)
        for known in names:
            if len(self._copies) >= _COPIES_MAX:
                return
            for model, originals, tensors in _copies_of(known.value, coverage, tensors_max):
                numbers = sorted(filter(_is_sampled(originals), range(len(tensors))), key=_size_in(tensors))
                former = {number: on_host(tensors[number]) for number in numbers[:_SAMPLES]}
                if former:
                    self._copies[known.expression] = _Copy(model, former)
                    break

    def averages(self, coverage: Coverage, names: CallerNames) -> Iterator[tuple[Known, torch.nn.Module]]:
        """Yield the copies that the step has moved towards a tracked module, each with that module.

        Args:
            coverage: What is kept now.
            names: The names now: a script may have replaced the copy.
        """
        tensors_max = _tensors_max(coverage)
        for known in names if self._copies else ():
            copy = self._copies.get(known.expression)
            if copy is None:
                continue
            for model, originals, tensors in _copies_of(known.value, coverage, tensors_max):
                if model is copy.model and _moves_towards(copy.former, originals, tensors):
                    yield known, model
                    break


def _copies_of(
    value: Any, coverage: Coverage, tensors_max: int
) -> Iterator[tuple[torch.nn.Module, list[torch.Tensor], list[torch.Tensor]]]:
    """Yield the tracked modules that a value has the shapes of, with the tensors of both, in their order."""
    if coverage.keeps(value):
        return
    if isinstance(value, torch.nn.Module):
        tensors: list[torch.Tensor] = list(value.parameters())
    elif isinstance(value, dict | list | tuple):
        found = _few_tensors_in(value, tensors_max)
        if found is None:
            return
        tensors = found
    else:
        return
    if not tensors or all(coverage.keeps_tensor(each) for each in tensors if memory_of(each) is not None):
        return
    shapes = [each.shape for each in tensors]
    for model in coverage.modules:
        own: list[torch.Tensor] = list(model.parameters())
        for originals in (own, [each for each in own if each.requires_grad], _state_of(model)):
            if [each.shape for each in originals] == shapes:
                yield model, originals, tensors
                break


def _tensors_max(coverage: Coverage) -> int:
    """Return how many tensors the largest tracked module has."""
    return max(
        (sum(1 for _ in itertools.chain(each.parameters(), each.buffers())) for each in coverage.modules),
        default=0,
    )


def _few_tensors_in(tree: Any, items_max: int) -> list[torch.Tensor] | None:
    """Return the tensors in a tree of containers, None if it is no copy of a module but, say, the data.

    Args:
        tree: A dict, list or tuple.
        items_max: A copy has no more tensors; a few plain values in a dict may stand beside them.
    """
    tensors: list[torch.Tensor] = []
    left = 2 * (items_max + _BESIDE_MAX)
    waiting: list[tuple[Any, bool]] = [(tree, False)]
    while waiting:
        node, is_field = waiting.pop()
        left -= 1
        if isinstance(node, torch.Tensor):
            tensors.append(node)
        elif isinstance(node, dict | list | tuple):
            if len(node) > min(items_max + _BESIDE_MAX, left):
                return None
            items = node.values() if isinstance(node, dict) else node
            waiting += [(item, isinstance(node, dict)) for item in items][::-1]
        elif not is_field:
            return None
    return tensors if len(tensors) <= items_max else None


def _state_of(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return parameters and persistent buffers in the order of the module's ``state_dict``."""
    if type(model).state_dict is not torch.nn.Module.state_dict:
        return []
    live = dict(model.named_parameters(remove_duplicate=False))
    return [
        live.get(name, each) for name, each in model.state_dict().items() if isinstance(each, torch.Tensor)
    ]


def _is_sampled(originals: list[torch.Tensor]) -> Any:
    def is_sampled(number: int) -> bool:
        each = originals[number]
        return each.requires_grad and each.is_floating_point() and 1 < each.numel() <= _ELEMENTS_MAX

    return is_sampled


def _size_in(tensors: list[torch.Tensor]) -> Any:
    return lambda number: tensors[number].numel()


def _moves_towards(
    former: dict[int, torch.Tensor], originals: list[torch.Tensor], tensors: list[torch.Tensor]
) -> bool:
    moves = [
        _move(before, on_host(tensors[number]), on_host(originals[number]), tensors[number].dtype)
        for number, before in former.items()
        if number < len(tensors)
    ]
    return any(moves) and False not in moves


def _move(before: torch.Tensor, after: torch.Tensor, target: torch.Tensor, dtype: torch.dtype) -> bool | None:
    """Tell whether values have moved straight towards a target; None if by no more than rounding."""
    way, moved = (target - before).flatten(), (after - before).flatten()
    rounding = torch.finfo(dtype).eps * _ROUNDINGS * torch.maximum(before.abs(), target.abs()).flatten()
    length = float(way.dot(way))
    if bool((moved.abs() <= rounding).all()):
        return None
    if not 0 < length < float("inf"):
        return False
    # Of each tensor by itself: where the values are large beside the steps, rounding changes the fraction.
    fraction = float(moved.dot(way)) / length
    if not _FRACTION_MIN < fraction < _FRACTION_MAX:
        return False
    allowed = rounding + _TOLERANCE * (fraction * way).abs()
    return bool(((moved - fraction * way).abs() <= allowed).all())
