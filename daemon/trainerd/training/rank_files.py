"""The two files of a rank: their names, their bytes, and the way back into a state tree.

Nothing that depends on the time, the attempt or the machine goes into them, so that the files of a disturbed
run equal those of an undisturbed one byte for byte.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from trainerd.checkpoint.safetensors import TensorEntry, parse_header
from trainerd.errors import CorruptError
from trainerd.training.restore import StateTree
from trainerd.training.tensors import TORCH_DTYPES

if TYPE_CHECKING:
    from pathlib import Path


def tensors_name(rank: int) -> str:
    """Return the name of the file with a rank's tensors."""
    return f"rank-{rank:05d}.safetensors"


def tree_name(rank: int) -> str:
    """Return the name of the file with the rest of a rank's state."""
    return f"rank-{rank:05d}.json"


def encode_document(document: dict[str, Any]) -> bytes:
    """Encode the tree. One spelling for one tree: no spaces, keys in the order of the tree."""
    return json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()


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
