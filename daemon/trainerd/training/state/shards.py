"""Tensors of which each rank holds a part.

`DTensor`, as FSDP2 (``fully_shard``) and tensor parallelism make them.

A rank saves what it holds, with the shape of the whole and where in it the part begins. With the same ranks
and the same placements it gets its own part back; otherwise the whole is put together from the files of all
ranks, and each object takes of it what is its own.

Invariants:
    No collective is used, neither to save nor to load.
    A whole is made only if the parts cover it, each element once.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.errors import CorruptError, UnsupportedValueError
from trainerd.training.state.tracked import Objects, Stateful, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SHARD_TAG: Final = "$shard"
_TENSOR_TAGS: Final = frozenset({"$tensor", "$strided", "$bits"})

JsonPlace = tuple[str | int, ...]


class WholeNeededError(Exception):
    """A rank's own part is not what its object holds now. Never leaves the package."""


@dataclass(frozen=True)
class Shard:
    """A saved part of a tensor.

    Attributes:
        part: The values.
        shape: Of the whole.
        offset: Where in the whole the part begins, by dimension.
    """

    part: torch.Tensor
    shape: tuple[int, ...]
    offset: tuple[int, ...]


def is_sharded(tensor: object) -> bool:
    """Tell whether this is a `DTensor`, without importing what makes them."""
    if "torch.distributed.tensor" not in sys.modules:
        return False
    return isinstance(tensor, torch.distributed.tensor.DTensor)


def own_shard(tensor: Any, path: str) -> Shard:
    """Return what this rank holds of a `DTensor`.

    Raises:
        UnsupportedValueError: It is not simply laid out: its parts are sums, or do not lie in one piece.
    """
    _, offset = _place_here(tensor, path)
    return Shard(tensor.to_local().detach(), tuple(tensor.shape), offset)


def check_placements(name: str, module: torch.nn.Module) -> None:
    """Check that what a module holds of sharded parameters has a form on disk.

    Raises:
        UnsupportedValueError: One has none.
    """
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_sharded(tensor):
            _place_here(tensor, f"{name}.{key}")


def placed_states(objects: Objects, states: dict[str, Any]) -> dict[str, Any]:
    """Return `states` with what is sharded in the live objects cut to what they hold here.

    Raises:
        WholeNeededError: A part that was saved is not the part that is held here.
    """
    if "torch.distributed.tensor" not in sys.modules and not any(map(_has_shards, states.values())):
        return states
    return {
        name: _placed(unwrapped(objects[name]), state) if name in objects else state
        for name, state in states.items()
    }


def whole_document(
    documents: Sequence[Any], decode: Callable[[Any, int], torch.Tensor]
) -> tuple[Any, dict[str, Any]]:
    """Put the parts of all ranks together.

    Args:
        documents: The state tree of every rank, in typed JSON.
        decode: Returns the tensor that a reference in the tree of a rank stands for.

    Returns:
        The tree of rank 0 with plain references in place of its parts, and the tensors that these refer to.

    Raises:
        CorruptError: The parts do not make a whole.
    """
    wholes: dict[str, torch.Tensor] = {}

    def visit(node: Any, place: JsonPlace) -> Any:
        if is_shard_node(node):
            name = f"{SHARD_TAG} {'/'.join(map(str, place))}"
            wholes[name] = _whole([node_at(document, place) for document in documents], decode, name)
            return {"$tensor": name}
        if isinstance(node, dict):
            return {key: visit(value, (*place, key)) for key, value in node.items()}
        if isinstance(node, list):
            return [visit(value, (*place, index)) for index, value in enumerate(node)]
        return node

    return visit(documents[0], ()), wholes


def has_shard_nodes(document: Any) -> bool:
    """Tell whether typed JSON holds a part of a tensor."""
    if is_shard_node(document):
        return True
    values = (
        document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    )
    return any(map(has_shard_nodes, values))


def is_shard_node(node: Any) -> bool:
    """Tell whether this is a part of a tensor, in typed JSON."""
    return isinstance(node, dict) and SHARD_TAG in node and len(node) == 1


def node_at(document: Any, place: JsonPlace) -> Any:
    """Return what stands at a place of a document.

    Raises:
        CorruptError: There is no such place.
    """
    try:
        for step in place:
            document = document[step]
    except (LookupError, TypeError) as error:
        raise CorruptError(f"the trees of the ranks differ at {'/'.join(map(str, place))}") from error
    return document


# ---------------------------------------------------------------------- the whole from its parts


def _whole(nodes: Sequence[Any], decode: Callable[[Any, int], torch.Tensor], name: str) -> torch.Tensor:
    parts: dict[tuple[tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}
    shape: tuple[int, ...] | None = None
    for rank, node in enumerate(nodes):
        if isinstance(node, dict) and _TENSOR_TAGS & node.keys():
            return decode(node, rank)  # this rank holds all of it
        if not is_shard_node(node):
            raise CorruptError(f"{name}: rank {rank} has no part of it")
        said, part = node[SHARD_TAG], decode(node[SHARD_TAG]["part"], rank)
        shape = tuple(said["shape"]) if shape is None else shape
        if tuple(said["shape"]) != shape:
            raise CorruptError(f"{name}: of shape {list(shape)}, on rank {rank} of shape {said['shape']}")
        if part.numel():
            parts[tuple(said["offset"]), tuple(part.shape)] = part  # a replica of a part is the same part
    assert shape is not None, "the checkpoint has at least one rank"
    whole = torch.empty(shape, dtype=next(iter(parts.values())).dtype if parts else torch.float32)
    covered = torch.zeros(shape, dtype=torch.bool)
    for (offset, size), part in parts.items():
        if any(begin + length > end for begin, length, end in zip(offset, size, shape, strict=True)):
            raise CorruptError(f"{name}: a part of {size} at {offset} lies outside of {shape}")
        window = tuple([slice(begin, begin + length) for begin, length in zip(offset, size, strict=True)])
        whole[window] = part
        covered[window] = True
    if sum(part.numel() for part in parts.values()) != whole.numel() or not bool(covered.all()):
        raise CorruptError(f"{name}: the parts of the ranks do not cover its shape {list(shape)} once")
    return whole


# ---------------------------------------------------------------------- what an object holds here


def _placed(target: Stateful, state: Any) -> Any:
    if isinstance(target, torch.optim.Optimizer):
        return _placed_optimizer(target, state)
    return _placed_tree(state, target.state_dict())


def _placed_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> Any:
    """State of an optimizer is placed like its parameter.

    Before the first step there is none to compare with.
    """
    try:
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        per_parameter = dict(state["state"])
    except (LookupError, TypeError):
        return state  # no optimizer's: that is said by the comparison of the fields
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=False):
        if number in per_parameter:
            per_parameter[number] = {
                key: _place(value, parameter) if _has_shape_of(value, parameter) else value
                for key, value in per_parameter[number].items()
            }
    return {**state, "state": per_parameter}


def _has_shape_of(value: Any, parameter: torch.Tensor) -> bool:
    return isinstance(value, Shard) or (isinstance(value, torch.Tensor) and value.shape == parameter.shape)


def _placed_tree(saved: Any, live: Any) -> Any:
    if isinstance(saved, Shard | torch.Tensor):
        return _place(saved, live)
    kind = type(saved)
    if kind in {dict, OrderedDict}:
        around = live if isinstance(live, dict) else {}
        placed = kind((key, _placed_tree(value, around.get(key))) for key, value in saved.items())
        if hasattr(saved, "_metadata"):
            placed._metadata = saved._metadata  # type: ignore[attr-defined]  # noqa: SLF001 - where torch looks for it
        return placed
    if kind in {list, tuple}:
        beside = live if isinstance(live, list | tuple) and len(live) == len(saved) else [None] * len(saved)
        return kind(_placed_tree(*pair) for pair in zip(saved, beside, strict=True))
    return saved


def _place(saved: Any, live: Any) -> Any:
    if not is_sharded(live):
        if isinstance(saved, Shard):
            raise WholeNeededError
        return saved
    size, offset = _place_here(live, "a tracked object")
    if isinstance(saved, Shard):
        if saved.shape != tuple(live.shape):
            return torch.empty(saved.shape, dtype=saved.part.dtype, device="meta")  # the comparison says so
        if (tuple(saved.part.shape), saved.offset) != (size, offset):
            raise WholeNeededError
        part = saved.part
    elif saved.shape != live.shape:
        return saved
    else:
        part = saved[
            tuple([slice(begin, begin + length) for begin, length in zip(offset, size, strict=True)])
        ]
    return torch.distributed.tensor.DTensor.from_local(
        part.contiguous() if not isinstance(saved, Shard) else part,
        live.device_mesh,
        live.placements,
        run_check=False,
        shape=live.shape,
        stride=live.stride(),
    )


def _place_here(tensor: Any, path: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of what this rank holds of a `DTensor`, and where in the whole it begins."""
    mesh = tensor.device_mesh
    inner = {level for level, placement in enumerate(tensor.placements) if _is_cut_last(tensor, level)}
    known = {torch.distributed.tensor.Shard, torch.distributed.tensor.Replicate}
    if any(type(each) not in known for level, each in enumerate(tensor.placements) if level not in inner):
        raise UnsupportedValueError(
            path,
            tensor,
            hint=f"it is placed as {tensor.placements}; only Shard, Replicate and the shards of FSDP over "
            "tensor parallelism have a form on disk",
        )
    if (coordinate := mesh.get_coordinate()) is None:
        raise UnsupportedValueError(
            path, tensor, hint="this rank is not part of the mesh that it is placed on"
        )
    in_order = sorted(range(len(tensor.placements)), key=lambda level: level in inner)
    cuts = [
        (tensor.placements[level].dim, mesh.size(level), coordinate[level])
        for level in in_order
        if level in inner or tensor.placements[level].is_shard()
    ]
    shape, offset = place_of_part(tuple(tensor.shape), cuts)
    held = tuple(tensor.to_local().shape)
    if held != shape:
        raise UnsupportedValueError(path, tensor, hint=f"it should hold {shape} here, not {held}")
    return shape, offset


def _is_cut_last(tensor: Any, level: int) -> bool:
    """Tell whether FSDP has cut a tensor that tensor parallelism had cut before, along the same dimension.

    torch says so with a placement of its own; the part is one piece, if the inner cuts go first.
    """
    placement, mesh = tensor.placements[level], tensor.device_mesh
    if type(placement).__name__ != "_StridedShard":
        return False
    later = [
        mesh.size(below)
        for below in range(level + 1, mesh.ndim)
        if tensor.placements[below].is_shard() and tensor.placements[below].dim == placement.dim
    ]
    return bool(math.prod(later) == placement.split_factor)


def place_of_part(
    shape: tuple[int, ...], cuts: Sequence[tuple[int, int, int]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of one part of a tensor that was cut as `torch.chunk` cuts, and where it begins.

    Args:
        shape: Of the whole.
        cuts: One after the other: the dimension, the number of parts, and which of them. The last parts are
            smaller, or empty, where the dimension cannot be divided evenly.
    """
    size, offset = list(shape), [0] * len(shape)
    for dimension, parts, number in cuts:
        length = -(-size[dimension] // parts)
        begin = min(length * number, size[dimension])
        size[dimension] = min(length, size[dimension] - begin)
        offset[dimension] += begin
    return tuple(size), tuple(offset)


def _has_shards(tree: Any) -> bool:
    return any(isinstance(value, Shard) for value in _leaves(tree))


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _leaves(value)
    else:
        yield tree
