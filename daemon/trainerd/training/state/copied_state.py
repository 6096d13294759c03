"""Copies of a state tree that `copy.deepcopy` cannot make."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, Final

import torch

from trainerd.checkpoint.host_memory import advise_huge_pages

HUGE_BYTES_MIN: Final = 4 << 20
"""A tensor of this size holds at least one huge page, wherever it begins."""


def copied_state(tree: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return a tree with copies of everything in it; tensors that were one object stay one object.

    `copy.deepcopy` will not do: it cannot copy compressed sparse tensors, nor tensors that have a gradient.
    """
    memo = {} if memo is None else memo
    if id(tree) in memo:
        return memo[id(tree)]
    kind = type(tree)
    if torch.nn.parameter.is_lazy(tree):
        return tree  # nothing in it yet
    if isinstance(tree, torch.Tensor):
        memo[id(tree)] = _copied_tensor(tree)
        return memo[id(tree)]
    if kind in {dict, OrderedDict}:
        copies = kind((copied_state(key, memo), copied_state(value, memo)) for key, value in tree.items())
        if hasattr(tree, "_metadata"):
            copies._metadata = copy.deepcopy(tree._metadata)  # type: ignore[attr-defined]  # noqa: SLF001 - where torch keeps it
        return copies
    if kind in {list, tuple}:
        return kind([copied_state(item, memo) for item in tree])
    return copy.deepcopy(tree, memo)


def _cloned(tensor: torch.Tensor) -> torch.Tensor:
    """Clone a tensor, a large one into huge pages: the faults of small ones cost several times the copy."""
    size_bytes = tensor.numel() * tensor.element_size()
    is_plain = type(tensor) is torch.Tensor and tensor.device.type == "cpu" and tensor.layout is torch.strided
    if size_bytes < HUGE_BYTES_MIN or not is_plain or tensor.is_quantized or not tensor.is_contiguous():
        return tensor.clone()
    copied = torch.empty_like(tensor)
    advise_huge_pages(copied.data_ptr(), size_bytes)
    return copied.copy_(tensor)


def _copied_tensor(tensor: torch.Tensor) -> torch.Tensor:
    copied = _cloned(tensor.detach())
    if type(tensor) is torch.nn.Parameter:
        return torch.nn.Parameter(copied, requires_grad=tensor.requires_grad)
    return copied.requires_grad_() if tensor.requires_grad and tensor.is_leaf else copied
