"""Tensors as typed JSON: their layout in the tree, their elements in a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import torch

from trainerd.errors import UnsupportedValueError
from trainerd.training.state.shards import SHARD_TAG, is_sharded, own_shard
from trainerd.training.state.tensor_dtypes import NAME_OF_OTHER, SAFETENSORS_DTYPES, dense_stride

_has_names: Final = getattr(torch.Tensor, "has_names", None)
"""Tells whether the dimensions of a tensor have names; newer versions of torch know none."""


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


def _memory_of(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    address = tensor.data_ptr()
    if address == 0 or tensor.numel() == 0:
        return None
    stride = None if tensor.is_contiguous() else tensor.stride()
    return (address, tensor.dtype, tensor.shape, stride, None if tensor.is_cpu else tensor.device)


def is_ordinary(tensor: torch.Tensor) -> bool:
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


def encode_tensor(value: torch.Tensor, path: str, table: TensorTable) -> dict[str, Any]:
    """Return a tensor of any layout as typed JSON, putting its elements into `table`.

    Raises:
        UnsupportedValueError: It has no exact form on disk; the message has its path.
    """
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
    if tensor.dtype in NAME_OF_OTHER:
        name = table.name_of(tensor, path)
        return {"$bits": {"tensor": name, "dtype": NAME_OF_OTHER[tensor.dtype], "shape": list(tensor.shape)}}
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
    part = encode_tensor(shard.part, path, table)
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
