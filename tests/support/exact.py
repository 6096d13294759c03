"""Equality to the last bit, of trees with tensors and arrays in them. Says where two trees differ."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch

from trainerd.training.checkpointer import Checkpointer


class Box:
    """Tracks any tree of state."""

    def __init__(self, tree: Any = None) -> None:
        self.tree = tree

    def state_dict(self) -> Any:
        return self.tree

    def load_state_dict(self, tree: Any) -> None:
        self.tree = tree


def through_disk(folder, saved: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Save `saved` in one Checkpointer and resume `fresh` in another one."""
    with Checkpointer(folder, saved) as checkpointer:
        checkpointer.save(step=1)
    with Checkpointer(folder, fresh) as checkpointer:
        assert checkpointer.resume() is not None


def tree_through_disk(folder, tree: Any) -> Any:
    """Return a tree of state as it comes back from disk."""
    box = Box()
    through_disk(folder, {"box": Box(tree)}, {"box": box})
    return box.tree


def assert_same(actual: Any, expected: Any, path: str = "state") -> None:
    """Compare types, values, signs of zeros, bits of NaNs, dtypes, layouts and strides."""
    kind = torch.Tensor if isinstance(expected, torch.Tensor) else type(expected)
    assert isinstance(actual, kind) if kind is torch.Tensor else type(actual) is kind, (
        f"{path}: {type(actual)} is not {type(expected)}"
    )
    if isinstance(expected, torch.Tensor):
        _assert_same_tensor(actual, expected, path)
    elif isinstance(expected, np.ndarray | np.generic):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), path
        assert actual.tobytes() == expected.tobytes(), path
    elif isinstance(expected, dict):
        assert list(actual) == list(expected), f"{path}: {list(actual)} are not {list(expected)}"
        for key, value in expected.items():
            assert_same(actual[key], value, f"{path}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), path
        for index, value in enumerate(expected):
            assert_same(actual[index], value, f"{path}[{index}]")
    elif isinstance(expected, float):
        assert struct.pack("<d", actual) == struct.pack("<d", expected), f"{path}: {actual} is not {expected}"
    else:
        assert actual == expected, f"{path}: {actual} is not {expected}"


def _assert_same_tensor(actual: torch.Tensor, expected: torch.Tensor, path: str) -> None:
    assert (actual.dtype, actual.shape, actual.layout) == (expected.dtype, expected.shape, expected.layout), (
        path
    )
    if actual.layout == torch.sparse_coo:
        assert actual.is_coalesced() == expected.is_coalesced(), path
        _assert_same_tensor(actual._indices(), expected._indices(), f"{path}.indices")
        _assert_same_tensor(actual._values(), expected._values(), f"{path}.values")
    elif actual.layout != torch.strided:
        is_row = actual.layout in {torch.sparse_csr, torch.sparse_bsr}
        for name in ("crow_indices", "col_indices") if is_row else ("ccol_indices", "row_indices"):
            _assert_same_tensor(getattr(actual, name)(), getattr(expected, name)(), f"{path}.{name}")
        _assert_same_tensor(actual.values(), expected.values(), f"{path}.values")
    else:
        assert bits_of(actual) == bits_of(expected), f"{path}: {actual} is not {expected}"


def bits_of(tensor: torch.Tensor) -> bytes:
    """Return the values as bytes, in the order of the indices."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()
