"""Loaders whose state after the last batch of a pass may be that of the beginning of the next one.

Resumed there, such a loader would yield a whole pass more. So its loop asks for the next batch before it
counts the last one. Where that cannot be done, it is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEPTH_MAX: Final = 4
_ITEMS_MAX: Final = 64
_OF_TRAINING: Final = (torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)


def silent_end(loader: Any, why: str, hint: str = "") -> Reason:
    """Return the reason why a resume right after the last batch of a pass may not be exact.

    Args:
        loader: The loader.
        why: Why no batch can be fetched ahead.
        hint: What else than a ``__len__`` would do.
    """
    kind = type(loader).__qualname__
    detail = (
        "its state after the last batch of a pass may be that of the beginning of the next one, and no batch "
        f"can be fetched ahead: {why}"
    )
    return Reason("silent-end", kind, detail, f"give {kind} a __len__{hint}")


def tracked_part_of(loader: Any, objects: Mapping[str, Any]) -> str | None:
    """Return the name of a tracked object that hangs below a loader, None if there is none.

    Args:
        loader: The loader. That it is tracked itself is no matter: its loop puts it back.
        objects: What is tracked, by name.
    """
    names = {id(value): name for name, value in objects.items() if not isinstance(value, _OF_TRAINING)}
    names.pop(id(loader), None)
    return next((names[id(part)] for part in _parts_of(loader, set(), 0) if id(part) in names), None)


def _parts_of(value: Any, seen: set[int], depth: int) -> Iterator[Any]:
    if id(value) in seen or depth > _DEPTH_MAX or isinstance(value, (type, *_OF_TRAINING)):
        return
    seen.add(id(value))
    yield value
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    for part in parts[:_ITEMS_MAX]:
        yield from _parts_of(part, seen, depth + 1)
