"""The two files of a rank: their names, their bytes, and the way back into a state tree.

Nothing that depends on the time, the attempt or the machine goes into them, so that the files of a disturbed
run equal those of an undisturbed one byte for byte.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from trainerd.checkpoint.direct_read import read_digested
from trainerd.checkpoint.safetensors import TensorEntry, parse_header
from trainerd.checkpoint.verify import verified_content
from trainerd.errors import CorruptError
from trainerd.training.state.restore import StateTree
from trainerd.training.state.shards import has_shard_nodes, whole_document
from trainerd.training.state.tensor_decoding import decode_state
from trainerd.training.state.tensor_dtypes import TORCH_DTYPES

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.checkpoint.committed import Checkpoint


def tensors_name(rank: int) -> str:
    """Return the name of the file with a rank's tensors."""
    return f"rank-{rank:05d}.safetensors"


def tree_name(rank: int) -> str:
    """Return the name of the file with the rest of a rank's state."""
    return f"rank-{rank:05d}.json"


def encode_document(document: dict[str, Any]) -> bytes:
    """Encode the tree. One spelling for one tree: no spaces, keys in the order of the tree."""
    return json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()


def read_verified(checkpoint: Checkpoint, rank: int, *, is_whole: bool = True) -> StateTree:
    """Read a rank's state, each byte once: what is hashed is what is used. All other files are verified too.

    Args:
        checkpoint: The checkpoint to read.
        rank: Whose state.
        is_whole: Whether to put tensors of which the rank has only a part together, from the files of all
            ranks.

    Raises:
        CorruptError: Something differs from the manifest, or is not what it should be in spite of its digest.
        FileNotFoundError: The whole checkpoint is gone.
        OSError: Something could not be read, which says nothing about what is in it.
    """
    ((document, tensors),) = _read_ranks(checkpoint, rank)
    if is_whole and has_shard_nodes(document):
        document, tensors = _whole(checkpoint, rank)
    return StateTree(document, tensors)


def _read_ranks(checkpoint: Checkpoint, *ranks: int) -> list[tuple[Any, dict[str, torch.Tensor]]]:
    names = [name for rank in ranks for name in (tree_name(rank), tensors_name(rank))]
    content = verified_content(checkpoint, names)
    if missing := [name for name in names if name not in content]:
        raise CorruptError(f"{checkpoint.name}: {missing[0]} is not in the manifest")
    return [
        _parsed(content[tree_name(rank)], content[tensors_name(rank)], source=checkpoint.name)
        for rank in ranks
    ]


def _whole(checkpoint: Checkpoint, rank: int) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a rank's document and tensors, with all parts put together."""
    others = [each for each in range(checkpoint.manifest.world_size) if each != rank]
    found = _read_ranks(checkpoint, rank, *others)
    document, wholes = whole_document(
        [document for document, _ in found], lambda node, which: _tensor_of(node, found[which][1])
    )
    return document, found[0][1] | wholes


def _tensor_of(node: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    tensor = decode_state(node, tensors)
    if not isinstance(tensor, torch.Tensor):
        raise CorruptError(f"a part of a tensor is none: {node!r:.80}")
    return tensor


def read_rank_files(folder: Path, rank: int) -> StateTree:
    """Read a rank's state. The caller has verified the digests.

    Raises:
        CorruptError: The files are not what they should be, digests or not.
        OSError: They could not be read.
    """
    tree, _ = read_digested(folder / tree_name(rank))
    tensors, _ = read_digested(folder / tensors_name(rank))
    return StateTree(*_parsed(tree, tensors, source=folder.name))


def _parsed(tree: memoryview, tensors: memoryview, *, source: str) -> tuple[Any, dict[str, torch.Tensor]]:
    try:
        document = json.loads(bytes(tree))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{source}: the state tree is ill-formed: {error!r:.200}") from error
    offset, entries, _ = parse_header(tensors)
    return document, {entry.name: _tensor_at(tensors, offset, entry) for entry in entries}


def _tensor_at(data: memoryview, offset: int, entry: TensorEntry) -> torch.Tensor:
    if entry.dtype not in TORCH_DTYPES:
        raise CorruptError(f"tensor {entry.name}: this version of torch has no dtype {entry.dtype}")
    dtype = TORCH_DTYPES[entry.dtype]
    if entry.end == entry.begin:
        return torch.empty(entry.shape, dtype=dtype)
    count = (entry.end - entry.begin) // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=count, offset=offset + entry.begin).reshape(entry.shape)
