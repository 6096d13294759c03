"""Copies of a state tree that `copy.deepcopy` cannot make."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch


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


def _copied_tensor(tensor: torch.Tensor) -> torch.Tensor:
    copied = tensor.detach().clone()
    if type(tensor) is torch.nn.Parameter:
        return torch.nn.Parameter(copied, requires_grad=tensor.requires_grad)
    return copied.requires_grad_() if tensor.requires_grad and tensor.is_leaf else copied
