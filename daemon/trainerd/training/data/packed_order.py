"""The batches of an epoch in an array: small in memory, and what is left of them can go into a checkpoint.

A sampler may yield anything that its dataset takes. Whole numbers, alone or in lists, tuples, arrays and
tensors, are packed; everything else is kept as it is.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch

_WIDTHS: Final = (torch.uint8, torch.int16, torch.int32)
_INT64: Final = "int64"


class PackedOrder(Sequence[Any]):
    """Batches of whole numbers.

    Args:
        numbers: Of all batches, one after another.
        ends: Where each batch ends in them; None if a batch is a single number.
        form: What the sampler yielded: the type of a batch, and of a number in it.

    Attributes:
        needs_check: Whether a checkpoint may not be able to hold them.
    """

    needs_check = False

    def __init__(self, numbers: torch.Tensor, ends: array[int] | None, form: tuple[str, str]) -> None:
        self._numbers = numbers
        self._ends = ends
        self._form = form
        self._build = _builder(*form)

    def __len__(self) -> int:
        return len(self._numbers) if self._ends is None else len(self._ends)

    def __getitem__(self, batch: Any) -> Any:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        if self._ends is None:
            return self._build(self._numbers[batch : batch + 1])[0]
        begin = self._ends[batch - 1] if batch else 0
        return self._build(self._numbers[begin : self._ends[batch]])

    def remaining(self, start: int) -> dict[str, Any]:
        """Return the batches from number `start` on as a tree for a checkpoint."""
        begin = start if self._ends is None else self._ends[start - 1] if start else 0
        tree: dict[str, Any] = {"form": list(self._form), "numbers": narrowed(self._numbers[begin:])}
        if self._ends is not None:
            sizes = torch.diff(_tensor(self._ends)[start:], prepend=torch.tensor([begin]))
            tree["sizes"] = narrowed(sizes)
        return tree


class ObjectOrder(Sequence[Any]):
    """Batches of anything.

    Attributes:
        needs_check: Whether a checkpoint may not be able to hold them.
    """

    needs_check = True

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, batch: Any) -> Any:
        return self._batches[batch]

    def remaining(self, start: int) -> dict[str, Any]:
        """Return the batches from number `start` on as a tree for a checkpoint."""
        return {"batches": self._batches[start:]}


class RemainingOrder(Sequence[Any]):
    """What is left of an order that a checkpoint holds, under the numbers that its batches had.

    Args:
        batches: Those that are left.
        start: Number of the first of them.

    Attributes:
        needs_check: Whether a checkpoint may not be able to hold them.
    """

    def __init__(self, batches: PackedOrder | ObjectOrder, start: int) -> None:
        self.needs_check = batches.needs_check
        self._batches = batches
        self._start = start

    def __len__(self) -> int:
        return self._start + len(self._batches)

    def __getitem__(self, batch: Any) -> Any:
        if batch < self._start:
            raise IndexError(batch)
        return self._batches[batch - self._start]

    def remaining(self, start: int) -> dict[str, Any]:
        """Return the batches from number `start` on as a tree for a checkpoint."""
        return self._batches.remaining(start - self._start)


def packed(batches: Iterable[Any]) -> PackedOrder | ObjectOrder:
    """Draw all batches and pack them, if they are whole numbers of one form."""
    numbers, ends = array("q"), array("q")
    form: tuple[str, str] | None = None
    drawn = iter(batches)
    for batch in drawn:
        found = _form_of(batch)
        if found is None or form not in {None, found}:
            former = _order(numbers, ends, form) if form is not None else ()
            return ObjectOrder([*former, batch, *drawn])
        form = found
        try:
            if form[0] == "index":
                numbers.append(batch)
            else:
                numbers.extend(batch.tolist() if form[0] in {"array", "tensor"} else batch)
                ends.append(len(numbers))
        except OverflowError:
            del numbers[ends[-1] if ends else 0 :]
            return ObjectOrder([*_order(numbers, ends, form), batch, *drawn])
    return _order(numbers, ends, form or ("index", "int"))


def restored(tree: Mapping[str, Any]) -> PackedOrder | ObjectOrder:
    """Return the batches that ``remaining`` returned."""
    if "batches" in tree:
        return ObjectOrder(list(tree["batches"]))
    sizes = tree.get("sizes")
    ends = None if sizes is None else array("q", torch.cumsum(sizes.to(torch.int64), 0).tolist())
    kind, item = tree["form"]
    return PackedOrder(tree["numbers"], ends, (kind, item))


def narrowed(numbers: torch.Tensor) -> torch.Tensor:
    """Return whole numbers in the narrowest type that holds them all."""
    if not len(numbers):
        return numbers
    least, most = (int(each) for each in torch.aminmax(numbers))
    for width in _WIDTHS:
        if torch.iinfo(width).min <= least and most <= torch.iinfo(width).max:
            return numbers.to(width)
    return numbers


def _order(numbers: array[int], ends: array[int], form: tuple[str, str]) -> PackedOrder:
    return PackedOrder(narrowed(_tensor(numbers)), None if form[0] == "index" else ends, form)


def _tensor(numbers: array[int]) -> torch.Tensor:
    return torch.frombuffer(numbers, dtype=torch.int64) if numbers else torch.zeros(0, dtype=torch.int64)


def _form_of(batch: Any) -> tuple[str, str] | None:
    kind = type(batch)
    if kind is list or kind is tuple:
        items = set(map(type, batch))
        item = _item_name(batch[0]) if len(items) == 1 else None
        if len(items) == 1 and item in {"tensor", "numpy"} and any(map(_is_odd, batch)):
            return None
        return (
            (kind.__name__, item)
            if item
            else ("list" if kind is list else "tuple", "int")
            if not items
            else None
        )
    item = _item_name(batch)
    if item is not None:
        return None if item == "tensor" and _is_odd(batch) else ("index", item)
    if kind is torch.Tensor and batch.dim() == 1 and batch.dtype == torch.int64 and batch.is_cpu:
        return "tensor", _INT64
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and batch.ndim == 1 and batch.dtype == numpy.int64:
        return "array", _INT64
    return None


def _item_name(item: Any) -> str | None:
    kind = type(item)
    if kind is int:
        return "int"
    if kind is torch.Tensor:
        return "tensor" if not _is_odd(item) else None
    numpy = sys.modules.get("numpy")
    return "numpy" if numpy is not None and kind is numpy.int64 else None


def _is_odd(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and (item.dim() > 0 or item.dtype != torch.int64 or not item.is_cpu)


def _builder(kind: str, item: str) -> Callable[[torch.Tensor], Any]:
    """Return what makes a batch of the form that the sampler yielded from its numbers."""
    if kind == "tensor":
        return lambda numbers: numbers.to(torch.int64, copy=True)
    if kind == "array":
        return lambda numbers: numbers.to(torch.int64, copy=True).numpy()
    wrap: Callable[[torch.Tensor], Any] = torch.Tensor.tolist
    if item == "tensor":
        wrap = _as_tensors
    elif item == "numpy":
        wrap = _as_numpy
    return (lambda numbers: tuple(wrap(numbers))) if kind == "tuple" else wrap


def _as_tensors(numbers: torch.Tensor) -> list[torch.Tensor]:
    return list(numbers.to(torch.int64, copy=True).unbind())


def _as_numpy(numbers: torch.Tensor) -> list[Any]:
    return list(numbers.to(torch.int64).numpy())
