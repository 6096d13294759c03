"""Which ranks train on different batches, and which on the same one, as the tracked models show it.

Gradients are averaged over the ranks of a `DistributedDataParallel` and of FSDP2 (``fully_shard``): these get
different batches. The ranks among which tensor parallelism cuts a parameter compute one step together: they
get the same batch. Where the models do not show it, the names of the mesh dimensions do.

Invariants:
    Nothing is guessed: what the models and the names do not show is a problem, in words.
    No collective is used.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import torch

from trainerd.training.state.shards import is_sharded
from trainerd.training.state.tracked import Objects, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_DATA: Final = frozenset(
    {"dp", "ddp", "fsdp", "hsdp", "data", "batch", "replica", "replicate", "shard", "zero"}
)
_MODEL: Final = frozenset(
    {
        "tp",
        "cp",
        "pp",
        "sp",
        "mp",
        "tensor",
        "context",
        "pipeline",
        "pipe",
        "stage",
        "sequence",
        "seq",
        "model",
    }
)
_EXPERT: Final = frozenset({"ep", "etp", "expert", "experts"})
"""Experts are cut among ranks that get different batches."""


@dataclass(frozen=True)
class ParallelRanks:
    """What the tracked models show of the ranks.

    Attributes:
        data: Ranks that get different batches, this one included, in their order; empty if that is not known.
        model: Ranks that get the same batch as this one, as far as the models show it, this one included.
        where: What shows it, such as ``model.0.weight``.
        problem: Why `data` is not known.
    """

    data: tuple[int, ...]
    model: tuple[int, ...]
    where: str
    problem: str | None = None


def parallel_ranks(
    objects: Objects, replicas: Iterable[Any], *, rank: int, world_size: int
) -> ParallelRanks | None:
    """Return what the tracked models show; None if they show nothing but that each rank is a replica.

    Args:
        objects: What is tracked.
        replicas: Each live `DistributedDataParallel` whose parameters are tracked.
        rank: This rank, as torch numbers it.
        world_size: How many there are.
    """
    found = _Evidence(rank)
    for replica in replicas:
        found.see_replica(replica)
    modules = [
        (name, module)
        for name, value in objects.items()
        if isinstance(module := unwrapped(value), torch.nn.Module)
    ]
    for name, module in modules:
        found.see_fsdp(name, module)
    for name, module in modules:
        found.see_tensors(name, module)
    return found.conclusion(world_size)


class MeshNamesError(Exception):
    """The names of a mesh's dimensions do not tell which of them are data-parallel. Never leaves training."""


def data_ranks_by_name(mesh: Any, rank: int) -> tuple[int, ...]:
    """Return the ranks of a mesh that differ from `rank` in data-parallel dimensions only, in their order.

    Args:
        mesh: A `DeviceMesh` of which `rank` is a part. If it has one dimension only, its name does not need
            to be a known one.
        rank: This rank.

    Raises:
        MeshNamesError: The names of its dimensions do not tell.
    """
    kinds = [_kind_of(name) for name in _names(mesh)]
    if mesh.ndim == 1 and kinds[0] == "unknown":
        kinds = ["data"]
    unclear = [
        name
        for name, kind, size in zip(_names(mesh), kinds, mesh.shape, strict=True)
        if size > 1 and kind not in {"data", "model"}
    ]
    if unclear:
        raise MeshNamesError(f"whether dimension {unclear[0]!r} of the mesh {_shown(mesh)} is data-parallel")
    return _grid(mesh, rank, [level for level, kind in enumerate(kinds) if kind == "data"])


class _Evidence:
    """Collects what is seen of the parallelism around one rank."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._data: dict[tuple[int, ...], str] = {}
        self._model: dict[tuple[int, ...], str] = {}
        self._by_name: dict[tuple[int, ...], str] = {}
        self._meshes: list[Any] = []
        self._mixed: dict[tuple[int, ...], str] = {}

    def see_replica(self, replica: Any) -> None:
        """Gradients are averaged over the process group of a `DistributedDataParallel`."""
        ranks = tuple(torch.distributed.get_process_group_ranks(replica.process_group))
        if len(ranks) > 1 and self._rank in ranks:
            self._data.setdefault(ranks, "its DistributedDataParallel")
        if (mesh := getattr(replica, "device_mesh", None)) is not None:
            self._meshes.append(mesh)

    def see_fsdp(self, name: str, module: torch.nn.Module) -> None:
        """Gradients are averaged over the mesh of each module under ``fully_shard``."""
        for path, each in module.named_modules():
            for mesh in _fsdp_meshes(each):
                if mesh.get_coordinate() is None:
                    continue
                self._meshes.append(mesh)
                where = f"{name}.{path}".rstrip(".")
                kinds = [_kind_of(dimension) for dimension in _names(mesh)]
                levels = [level for level, kind in enumerate(kinds) if kind != "model"]
                ranks = _grid(mesh, self._rank, levels)
                self._data.setdefault(ranks, where)
                if "mixed" in kinds:
                    self._mixed.setdefault(ranks, f"{where} is sharded over the mesh {_shown(mesh)}")
                if len(levels) < mesh.ndim:
                    rest = [level for level in range(mesh.ndim) if level not in levels]
                    self._model.setdefault(_grid(mesh, self._rank, rest), where)

    def see_tensors(self, name: str, module: torch.nn.Module) -> None:
        """What no data-parallel wrapper has cut, tensor parallelism has."""
        for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not is_sharded(tensor):
                continue
            mesh, placements = cast("Any", tensor).device_mesh, cast("Any", tensor).placements
            if mesh.get_coordinate() is None:
                continue
            self._meshes.append(mesh)
            kinds = [self._kind_in(mesh, level, placements[level]) for level in range(mesh.ndim)]
            for wanted, into in (("model", self._model), ("data", self._by_name)):
                levels = [level for level, kind in enumerate(kinds) if kind == wanted]
                if len(ranks := _grid(mesh, self._rank, levels)) > 1:
                    into.setdefault(ranks, f"{name}.{path}")

    def _kind_in(self, mesh: Any, level: int, placement: Any) -> str:
        ranks = set(_grid(mesh, self._rank, [level]))
        if any(ranks <= set(known) for known in self._data):
            return "reduced"
        kind = _kind_of(_names(mesh)[level])
        if kind in {"expert", "mixed"}:
            return "neither"
        if kind == "unknown":
            if not placement.is_replicate():
                return "model"
            return "data" if mesh.ndim > 1 else "neither"
        return kind

    def conclusion(self, world_size: int) -> ParallelRanks | None:
        """Put together what was seen."""
        data_groups = self._data or self._by_name
        data, data_where, is_one = _largest(data_groups, self._rank)
        model, model_where, is_one_model = _largest(self._model, self._rank)
        mixed = self._mixed.get(data)
        if len(model) == 1 and len(data) in {1, world_size} and mixed is None:
            return None
        where = model_where or data_where
        if mixed is None and is_one and is_one_model and len(data) * len(model) == world_size:
            return ParallelRanks(data, model, where)
        for mesh in self._meshes:
            root = _root_of(mesh)
            if root is None or root.size() != world_size or root.get_coordinate() is None:
                continue
            try:
                ranks = data_ranks_by_name(root, self._rank)
            except MeshNamesError:
                continue
            if root.ndim > 1 and set(ranks) & set(model) == {self._rank}:
                return ParallelRanks(ranks, model, where)
        return ParallelRanks((), model, where, mixed or _problem(data, model, where))


def _problem(data: tuple[int, ...], model: tuple[int, ...], where: str) -> str:
    if len(model) > 1:
        return f"{where} is spread over ranks {list(model)}"
    return f"the gradients of {where} are averaged over ranks {list(data)} only"


def _largest(groups: dict[tuple[int, ...], str], rank: int) -> tuple[tuple[int, ...], str, bool]:
    """Return the largest group, where it was seen, and whether it has all others in it."""
    if not groups:
        return (rank,), "", True
    largest = max(groups, key=len)
    return largest, groups[largest], all(set(each) <= set(largest) for each in groups)


def _fsdp_meshes(module: torch.nn.Module) -> Iterator[Any]:
    """Yield the meshes over which FSDP2 averages the gradients of what a module itself manages."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    if kind is None or not isinstance(module, kind):
        return
    # torch tells it under private names only. Without them, the names of the dimensions decide.
    state = getattr(module, "_get_fsdp_state", lambda: None)()
    groups = [*getattr(state, "_fsdp_param_groups", ()), getattr(state, "_fsdp_param_group", None)]
    seen: list[Any] = []
    for group in groups:
        mesh = getattr(getattr(group, "mesh_info", None), "mesh", None)
        if mesh is not None and not any(mesh is each for each in seen):
            seen.append(mesh)
            yield mesh


def _grid(mesh: Any, rank: int, levels: Sequence[int]) -> tuple[int, ...]:
    """Return the ranks that one can come to from `rank` along some dimensions of a mesh, in their order."""
    coordinate = (mesh.mesh == rank).nonzero()[0].tolist()
    place = tuple([slice(None) if level in levels else at for level, at in enumerate(coordinate)])
    return tuple(mesh.mesh[place].reshape(-1).tolist())


def _names(mesh: Any) -> tuple[str, ...]:
    return tuple(mesh.mesh_dim_names or ("",) * mesh.ndim)


def _shown(mesh: Any) -> str:
    names = mesh.mesh_dim_names or [f"dimension {level}" for level in range(mesh.ndim)]
    return f"({', '.join(f'{name}={size}' for name, size in zip(names, mesh.shape, strict=True))})"


def _kind_of(name: str) -> str:
    """Return what a mesh dimension is for, by its name: data, model, expert, mixed or unknown."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    kinds = [
        kind for kind, known in (("data", _DATA), ("model", _MODEL), ("expert", _EXPERT)) if words & known
    ]
    if not kinds:
        return "unknown"
    return kinds[0] if len(kinds) == 1 else "mixed"


def _root_of(mesh: Any) -> Any:
    """Return the mesh that a mesh was sliced from, None if this torch does not tell."""
    ask = getattr(mesh, "_get_root_mesh", None)
    if ask is not None:
        return ask()
    resources: Any = getattr(sys.modules.get("torch.distributed.device_mesh"), "_mesh_resources", None)
    return resources.get_root_mesh(mesh) if hasattr(resources, "get_root_mesh") else None
