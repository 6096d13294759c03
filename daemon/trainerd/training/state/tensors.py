"""A state tree with its tensors, as what is written into the two files of a rank.

The tree goes into ``rank-NNNNN.json`` with a reference in place of every tensor, the tensors go into
``rank-NNNNN.safetensors`` under the path at which they were first met. Two places that hold the same tensor
hold the same reference: tied tensors are stored once and are one object again when they are read.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import is_dataclass
from functools import partial
from typing import Any, Final

import torch

from trainerd.checkpoint.tree import encode_tree
from trainerd.errors import UnsupportedValueError
from trainerd.training.state.tensor_layouts import TensorTable, encode_tensor, is_ordinary

_NUMPY_KINDS: Final = {
    "float": (16, 32, 64),
    "int": (8, 16, 32, 64),
    "uint": (8, 16, 32, 64),
    "complex": (64, 128),
}
_NUMPY_DTYPES: Final = frozenset(
    f"{kind}{bits}" for kind, sizes in _NUMPY_KINDS.items() for bits in sizes
) | {"bool"}

FACTORIES: Final[dict[str, type]] = {kind.__name__: kind for kind in (int, float, bool, str, list, dict, set)}
"""What a defaultdict may make: anything else would be code, which a checkpoint does not hold."""


def encode_state(state: Any, table: TensorTable, *, root: str) -> Any:
    """Turn a tree with tensors into typed JSON, putting the tensors into `table`. Nothing is copied.

    Raises:
        UnsupportedValueError: A value has no exact form on disk; the message has its path.
    """
    return encode_tree(state, leaf=partial(_encode_leaf, table), root=root)


def is_encodable(state: Any) -> bool:
    """Tell whether a checkpoint can hold a tree."""
    try:
        encode_state(state, TensorTable(takes_shards=False), root="value")
    except UnsupportedValueError:
        return False
    return True


def _encode_leaf(table: TensorTable, value: Any, path: str) -> dict[str, Any] | None:
    if type(value) is torch.Tensor and is_ordinary(value):
        return {"$tensor": table.name_of(value, path)}
    if isinstance(value, torch.Tensor):
        return encode_tensor(value, path, table)
    if type(value) is Counter:
        return {"$counter": encode_state(list(value.items()), table, root=path)}
    if type(value) is defaultdict and (
        value.default_factory is None or value.default_factory in FACTORIES.values()
    ):
        factory = value.default_factory.__name__ if value.default_factory is not None else None
        return {"$defaultdict": [factory, encode_state(dict(value), table, root=path)]}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"$device": str(value)}
    if is_dataclass(value) and not isinstance(value, type):
        raise UnsupportedValueError(
            path, value, hint="a checkpoint holds no classes: keep dataclasses.asdict(…) of it, or its fields"
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        raise UnsupportedValueError(
            path, value, hint="a checkpoint holds no classes: keep tuple(…) of it, or its _asdict()"
        )
    if isinstance(value, torch.Size):
        return {"$size": list(value)}
    if "numpy" in sys.modules:
        return _encode_numpy(value, path, table)
    return None


def _encode_numpy(value: Any, path: str, table: TensorTable) -> dict[str, Any] | None:
    import numpy as np

    if not isinstance(value, np.generic | np.ndarray) or value.dtype.name not in _NUMPY_DTYPES:
        return None
    if isinstance(value, np.generic):
        return {"$numpy": {"dtype": value.dtype.name, "bits": value.tobytes().hex()}}
    if type(value) is not np.ndarray:
        return None
    if not value.dtype.isnative:
        raise UnsupportedValueError(path, value, hint="its bytes are in foreign order; convert it first")
    array = np.ascontiguousarray(value).reshape(value.shape)
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    encoded = encode_tensor(tensor, path, table)
    return {"$array": encoded.get("$tensor", encoded)}
