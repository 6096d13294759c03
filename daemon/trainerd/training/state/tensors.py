"""Tensors and what surrounds them in a state tree, to and from the two files of a rank.

The tree goes into ``rank-NNNNN.json`` with a reference in place of every tensor, the tensors go into
``rank-NNNNN.safetensors`` under the path at which they were first met. Two places that hold the same tensor
hold the same reference: tied tensors are stored once and are one object again when they are read.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from typing import Any, Final

import torch

from trainerd.checkpoint.tree import decode_tree, encode_tree
from trainerd.errors import CorruptError, UnsupportedValueError
from trainerd.training.state.shards import SHARD_TAG, Shard, is_sharded, own_shard

SAFETENSORS_DTYPES: Final[dict[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
"""What safetensors has a name for. Other dtypes travel as bytes, with their name in the tree."""

_OTHER_DTYPES: Final = {
    name: dtype
    for name in (
        "complex128",
        "complex32",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn_x2",
    )
    if (dtype := getattr(torch, name, None)) is not None
}
_NAME_OF_OTHER: Final = {dtype: name for name, dtype in _OTHER_DTYPES.items()}
TORCH_DTYPES: Final = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}

_NUMPY_KINDS: Final = {
    "float": (16, 32, 64),
    "int": (8, 16, 32, 64),
    "uint": (8, 16, 32, 64),
    "complex": (64, 128),
}
_NUMPY_DTYPES: Final = frozenset(
    f"{kind}{bits}" for kind, sizes in _NUMPY_KINDS.items() for bits in sizes
) | {"bool"}

_has_names: Final = getattr(torch.Tensor, "has_names", None)
"""Tells whether the dimensions of a tensor have names; newer versions of torch know none."""

_FACTORIES: Final[dict[str, type]] = {
    kind.__name__: kind for kind in (int, float, bool, str, list, dict, set)
}
"""What a defaultdict may make: anything else would be code, which a checkpoint does not hold."""


@dataclass
class TensorTable:
    """The tensors of one tree, by the name they are stored under, in the order in which they were met."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    takes_shards: bool = True
    _names: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def name_of(self, tensor: torch.Tensor, path: str) -> str:
        """Return the name of a tensor, adding it if it is not the same memory as one already there."""
        key = _memory_of(tensor)
        if key is not None and key in self._names:
            return self._names[key]
        name = path
        while name in self.tensors:  # {"a.b": t} and {"a": {"b": t}} have the same path
            name += "'"
        self.tensors[name] = tensor  # and so the memory stays its own for as long as the table lives
        if key is not None:
            self._names[key] = name
        return name


def encode_state(state: Any, table: TensorTable, *, root: str) -> Any:
    """Turn a tree with tensors into typed JSON, putting the tensors into `table`. Nothing is copied.

    Raises:
        UnsupportedValueError: A value has no exact form on disk; the message has its path.
    """
    return encode_tree(state, leaf=partial(_encode_leaf, table), root=root)


def decode_state(document: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Turn typed JSON back into the tree, taking the tensors from `tensors`.

    Raises:
        CorruptError: The document refers to what is not there, or to what this version does not know.
    """
    return _decode_within(document, _Found(tensors))


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
        return kind(copied_state(item, memo) for item in tree)
    return copy.deepcopy(tree, memo)


def _copied_tensor(tensor: torch.Tensor) -> torch.Tensor:
    copied = tensor.detach().clone()
    if type(tensor) is torch.nn.Parameter:
        return torch.nn.Parameter(copied, requires_grad=tensor.requires_grad)
    return copied.requires_grad_() if tensor.requires_grad and tensor.is_leaf else copied


def stored_form(tensor: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Return a tensor as stored in the file (bytes, if safetensors lacks the dtype) and its dtype there."""
    if dtype := SAFETENSORS_DTYPES.get(tensor.dtype):
        return tensor, dtype
    return tensor.contiguous().reshape(-1).view(torch.uint8), "U8"


def _memory_of(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    address = tensor.data_ptr()
    if address == 0 or tensor.numel() == 0:
        return None
    stride = None if tensor.is_contiguous() else tensor.stride()
    return (address, tensor.dtype, tensor.shape, stride, None if tensor.is_cpu else tensor.device)


def dense_stride(tensor: torch.Tensor) -> list[int] | None:
    """Return the strides of a tensor without holes whose dimensions are permuted, such as channels last.

    Optimizer state is laid out like its parameter, and arithmetic on another layout may round otherwise.
    """
    if tensor.is_contiguous():
        return None
    expected = 1
    for stride, size in sorted(
        (stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1
    ):
        if stride != expected:
            return None
        expected *= size
    return list(tensor.stride())


def _encode_leaf(table: TensorTable, value: Any, path: str) -> dict[str, Any] | None:
    if type(value) is torch.Tensor and _is_ordinary(value):
        return {"$tensor": table.name_of(value, path)}
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value, path, table)
    if type(value) is Counter:
        return {"$counter": encode_state(list(value.items()), table, root=path)}
    if type(value) is defaultdict and (
        value.default_factory is None or value.default_factory in _FACTORIES.values()
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


def _is_ordinary(tensor: torch.Tensor) -> bool:
    """Return whether nothing about a tensor needs a closer look.

    Nearly all are so, and the loop waits meanwhile.
    """
    return (
        tensor.dtype in SAFETENSORS_DTYPES
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_nested
        and tensor.is_contiguous()
        and not tensor.is_meta
        and not tensor.is_conj()
        and not tensor.is_neg()
        and _has_its_memory(tensor)
        and (_has_names is None or not _has_names(tensor))
    )


def _has_its_memory(tensor: torch.Tensor) -> bool:
    """Return whether all elements of a strided tensor lie in its storage.

    A storage that was resized, as to free memory for a while, leaves the shape of its tensors unchanged.
    """
    if tensor.numel() == 0:
        return True
    try:
        held = tensor.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):  # wrapped by functorch, or opaque
        return False
    last = tensor.storage_offset()
    last += (
        tensor.numel() - 1
        if tensor.is_contiguous()
        else sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    )
    return (last + 1) * tensor.element_size() <= held


def _encode_tensor(value: torch.Tensor, path: str, table: TensorTable) -> dict[str, Any]:
    if torch.nn.parameter.is_lazy(value):
        raise UnsupportedValueError(
            path, value, hint="a lazy module has no values yet: run one batch through the model first"
        )
    if is_sharded(value):
        return _encode_sharded(value, path, table)
    if type(value) is torch.nn.Parameter:
        parameter = {"tensor": _encode_values(value, path, table), "requires_grad": value.requires_grad}
        return {"$parameter": parameter}
    if value.requires_grad and value.is_leaf and type(value) is torch.Tensor:
        return {"$leaf": _encode_values(value, path, table)}
    return _encode_values(value, path, table)


def _encode_values(value: torch.Tensor, path: str, table: TensorTable) -> dict[str, Any]:
    """Encode what a tensor holds; what it is a node of in a graph is not state."""
    try:
        return _encode_layout(value.detach(), value, path, table)
    except (RuntimeError, NotImplementedError) as error:
        raise UnsupportedValueError(
            path, value, hint=f"torch does not show its values: {str(error).splitlines()[0]:.120}"
        ) from error


def _encode_layout(
    tensor: torch.Tensor, value: torch.Tensor, path: str, table: TensorTable
) -> dict[str, Any]:
    if type(tensor) not in {torch.Tensor, torch.nn.Parameter}:
        raise UnsupportedValueError(path, value, hint="track the plain tensors behind it")
    if tensor.layout is torch._mkldnn:  # type: ignore[attr-defined]  # noqa: SLF001 - its only name
        raise UnsupportedValueError(
            path,
            value,
            hint="it is in the layout of MKL-DNN, which only this machine reads: to_dense() first",
        )
    if _is_of_functorch(tensor):
        raise UnsupportedValueError(
            path, value, hint="it belongs to a vmap, grad or jvp in progress: keep what that returns"
        )
    if _has_names is not None and _has_names(tensor):
        raise UnsupportedValueError(
            path, value, hint="names of dimensions have no form on disk: rename(None) first"
        )
    if tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        raise UnsupportedValueError(
            path, value, hint="quantized, nested and meta tensors hold no plain values to save"
        )
    if tensor.layout is torch.strided and not _has_its_memory(tensor):
        raise UnsupportedValueError(
            path,
            value,
            hint=f"its storage of {tensor.untyped_storage().nbytes()} bytes is smaller than its shape "
            f"{list(tensor.shape)}: it was resized, as by FSDP between two uses; give it its memory back "
            "first, or leave it out of the state",
        )
    if tensor.is_conj() or tensor.is_neg():  # what lies in memory is not yet what the values are
        tensor = tensor.resolve_conj().resolve_neg()
    if tensor.layout == torch.sparse_coo:
        parts = _coordinates(tensor, path)
        return _encode_sparse("coo", tensor, parts, path, table, is_coalesced=tensor.is_coalesced())
    if tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        parts = {"crow": tensor.crow_indices(), "col": tensor.col_indices(), "values": tensor.values()}
        return _encode_sparse(str(tensor.layout).removeprefix("torch.sparse_"), tensor, parts, path, table)
    if tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        parts = {"ccol": tensor.ccol_indices(), "row": tensor.row_indices(), "values": tensor.values()}
        return _encode_sparse(str(tensor.layout).removeprefix("torch.sparse_"), tensor, parts, path, table)
    if tensor.dtype in SAFETENSORS_DTYPES:
        name = table.name_of(tensor, path)
        stride = dense_stride(tensor)
        return {"$tensor": name} if stride is None else {"$strided": {"tensor": name, "stride": stride}}
    if tensor.dtype in _NAME_OF_OTHER:
        name = table.name_of(tensor, path)
        return {"$bits": {"tensor": name, "dtype": _NAME_OF_OTHER[tensor.dtype], "shape": list(tensor.shape)}}
    raise UnsupportedValueError(
        path, value, hint=f"tensors of {tensor.dtype} have no form on disk; convert it first"
    )


def _is_of_functorch(tensor: torch.Tensor) -> bool:
    check = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)  # noqa: SLF001
    return check is not None and bool(check(tensor))


def _coordinates(tensor: torch.Tensor, path: str) -> dict[str, torch.Tensor]:
    if tensor.is_coalesced():
        return {"indices": tensor.indices(), "values": tensor.values()}
    indices, values = (getattr(tensor, name, None) for name in ("_indices", "_values"))
    if indices is None or values is None:  # the public ones refuse it
        raise UnsupportedValueError(
            path,
            tensor,
            hint="this torch does not show the parts of an uncoalesced tensor: coalesce() it first",
        )
    return {"indices": indices(), "values": values()}


def _encode_sharded(value: torch.Tensor, path: str, table: TensorTable) -> dict[str, Any]:
    shard = own_shard(value, path)
    part = _encode_tensor(shard.part, path, table)
    if shard.part.shape == shard.shape:
        return part  # all of it is here: a tensor like any other
    if not table.takes_shards:
        raise UnsupportedValueError(path, value, hint="track the object that it belongs to")
    return {SHARD_TAG: {"part": part, "shape": list(shard.shape), "offset": list(shard.offset)}}


def _encode_sparse(
    layout: str,
    tensor: torch.Tensor,
    parts: dict[str, torch.Tensor],
    path: str,
    table: TensorTable,
    *,
    is_coalesced: bool = True,
) -> dict[str, Any]:
    encoded = {name: _encode_values(part, f"{path}.{name}", table) for name, part in parts.items()}
    return {
        "$sparse": {
            "layout": layout,
            "shape": list(tensor.shape),
            "is_coalesced": is_coalesced,
            "parts": encoded,
        }
    }


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
    encoded = _encode_tensor(tensor, path, table)
    return {"$array": encoded.get("$tensor", encoded)}


@dataclass
class _Found:
    """The tensors of a file, and those that were made of them: what is tied is made once."""

    stored: dict[str, torch.Tensor]
    made: dict[str, torch.Tensor] = field(default_factory=dict)
    kept: list[torch.Tensor] = field(default_factory=list)


def _decode_leaf(tag: str, payload: Any, found: _Found) -> Any:
    try:
        return _DECODERS[tag](payload, found)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CorruptError(f"cannot read {tag} {payload!r:.80}: {error!r}") from error


def _decode_bits(payload: Any, found: _Found) -> torch.Tensor:
    name = payload["tensor"]
    if name not in found.made:
        found.made[name] = found.stored[name].view(_OTHER_DTYPES[payload["dtype"]]).reshape(payload["shape"])
    return found.made[name]


def _decode_strided(payload: Any, found: _Found) -> torch.Tensor:
    name = payload["tensor"]
    if name not in found.made:
        stored = found.stored[name]
        found.made[name] = torch.empty_strided(stored.shape, payload["stride"], dtype=stored.dtype).copy_(
            stored
        )
    return found.made[name]


def _decode_sparse(payload: Any, found: _Found) -> torch.Tensor:
    parts = {name: _decode_part(part, found) for name, part in payload["parts"].items()}
    layout, shape = payload["layout"], payload["shape"]
    if layout == "coo":
        return torch.sparse_coo_tensor(
            parts["indices"],
            parts["values"],
            shape,
            is_coalesced=payload["is_coalesced"],
            check_invariants=False,
        )
    compressed, plain = ("crow", "col") if layout in {"csr", "bsr"} else ("ccol", "row")
    return torch.sparse_compressed_tensor(
        parts[compressed], parts[plain], parts["values"], shape, layout=getattr(torch, f"sparse_{layout}")
    )


def _decode_parameter(payload: Any, found: _Found) -> torch.nn.Parameter:
    tensor, flag = _decode_part(payload["tensor"], found), bool(payload["requires_grad"])
    key = f"$parameter {id(tensor)} {flag}"
    if key not in found.made:
        found.made[key] = torch.nn.Parameter(tensor, requires_grad=flag)
        found.kept.append(tensor)
    made = found.made[key]
    assert isinstance(made, torch.nn.Parameter)
    return made


def _decode_leaf_tensor(payload: Any, found: _Found) -> torch.Tensor:
    tensor = _decode_part(payload, found)
    key = f"$leaf {id(tensor)}"
    if key not in found.made:
        found.made[key] = tensor.detach().requires_grad_()
        found.kept.append(tensor)
    return found.made[key]


def _decode_part(part: Any, found: _Found) -> torch.Tensor:
    ((tag, payload),) = part.items()
    decoded = _decode_leaf(tag, payload, found)
    assert isinstance(decoded, torch.Tensor)
    return decoded


def _decode_shard(payload: Any, found: _Found) -> Shard:
    return Shard(_decode_part(payload["part"], found), tuple(payload["shape"]), tuple(payload["offset"]))


def _decode_array(payload: Any, found: _Found) -> Any:
    tensor = found.stored[payload] if isinstance(payload, str) else _decode_part(payload, found)
    return tensor.numpy()


def _decode_numpy(payload: Any) -> Any:
    import numpy as np

    return np.frombuffer(bytes.fromhex(payload["bits"]), dtype=payload["dtype"])[0]


def _decode_defaultdict(payload: Any, found: _Found) -> defaultdict[Any, Any]:
    name, items = payload
    return defaultdict(_FACTORIES[name] if name is not None else None, _decode_within(items, found))


def _decode_within(document: Any, found: _Found) -> Any:
    return decode_tree(document, leaf=lambda tag, payload: _decode_leaf(tag, payload, found))


_DECODERS: Final[dict[str, Any]] = {
    "$tensor": lambda payload, found: found.stored[payload],
    "$bits": _decode_bits,
    "$strided": _decode_strided,
    "$sparse": _decode_sparse,
    SHARD_TAG: _decode_shard,
    "$parameter": _decode_parameter,
    "$leaf": _decode_leaf_tensor,
    "$array": _decode_array,
    "$numpy": lambda payload, _: _decode_numpy(payload),
    "$counter": lambda payload, found: Counter(dict(_decode_within(payload, found))),
    "$defaultdict": _decode_defaultdict,
    "$dtype": lambda payload, _: getattr(torch, payload),
    "$device": lambda payload, _: torch.device(payload),
    "$size": lambda payload, _: torch.Size(payload),
}
