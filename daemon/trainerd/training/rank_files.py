"""The two files of a rank: written from a snapshot, read back into a state tree.

Nothing that depends on the time, the attempt or the machine goes into them, so that the files of a disturbed
run equal those of an undisturbed one byte for byte.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from trainerd.checkpoint.safetensors import TensorEntry, layout, parse_header
from trainerd.errors import CorruptError
from trainerd.training.restore import StateTree
from trainerd.training.tensors import TORCH_DTYPES, stored_form

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainerd.checkpoint.manifest import FileEntry
    from trainerd.checkpoint.store import Staging
    from trainerd.training.snapshot import Snapshot


def tensors_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def tree_name(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def encode_document(document: dict[str, Any]) -> bytes:
    """Encode the tree. One spelling for one tree: no spaces, keys in the order of the tree."""
    return json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()


def write_rank_files(staging: Staging, snapshot: Snapshot, rank: int) -> tuple[FileEntry, FileEntry]:
    """Write a snapshot into a staging folder, durably.

    Raises:
        SpaceError: The disk is full.
    """
    return (
        staging.write(tensors_name(rank), _tensor_chunks(snapshot)),
        staging.write(tree_name(rank), [encode_document(snapshot.document)]),
    )


def _tensor_chunks(snapshot: Snapshot) -> Iterator[bytes | memoryview]:
    stored = {name: stored_form(tensor) for name, tensor in snapshot.tensors.items()}
    header, entries = layout([(name, dtype, tuple(tensor.shape)) for name, (tensor, dtype) in stored.items()])
    yield header
    for entry in entries:
        if entry.end > entry.begin:
            yield tensor_bytes(stored[entry.name][0])


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor in row-major order, without a copy where it lies so on the CPU already."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return memoryview(flat.numpy())


def read_rank_files(folder: Path, rank: int) -> StateTree:
    """Read a rank's state. The caller has verified the digests.

    Raises:
        CorruptError: The files are not what they should be, digests or not.
        OSError: They could not be read.
    """
    document = json.loads((folder / tree_name(rank)).read_bytes())
    path = folder / tensors_name(rank)
    data = bytearray(path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        if file.readinto(data) != len(data):
            raise CorruptError(f"{path}: shorter than it was a moment ago")
    offset, entries, _ = parse_header(data)
    tensors = {entry.name: _tensor_at(data, offset, entry) for entry in entries}
    return StateTree(document, tensors)


def _tensor_at(data: bytearray, offset: int, entry: TensorEntry) -> torch.Tensor:
    if entry.dtype not in TORCH_DTYPES:
        raise CorruptError(f"tensor {entry.name}: this version of torch has no dtype {entry.dtype}")
    dtype = TORCH_DTYPES[entry.dtype]
    if entry.end == entry.begin:
        return torch.empty(entry.shape, dtype=dtype)
    count = (entry.end - entry.begin) // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=count, offset=offset + entry.begin).reshape(entry.shape)
