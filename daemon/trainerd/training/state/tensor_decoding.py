"""A state tree with its tensors, read from the two files of a rank."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from trainerd.checkpoint.tree import decode_tree
from trainerd.errors import CorruptError
from trainerd.training.state.shards import SHARD_TAG, Shard
from trainerd.training.state.tensor_dtypes import OTHER_DTYPES
from trainerd.training.state.tensors import FACTORIES


def decode_state(document: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Turn typed JSON back into the tree, taking the tensors from `tensors`.

    Raises:
        CorruptError: The document refers to what is not there, or to what this version does not know.
    """
    return _decode_within(document, _Found(tensors))


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
        found.made[name] = found.stored[name].view(OTHER_DTYPES[payload["dtype"]]).reshape(payload["shape"])
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
    return defaultdict(FACTORIES[name] if name is not None else None, _decode_within(items, found))


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
