"""Which share of the batches a rank gets: its place among the replicas of the model.

Each rank is a replica of its own, unless the model is spread over several ranks: these get the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import DistributedSampler

from trainerd.errors import UserError
from trainerd.training.state.parallel_meshes import MeshNamesError, data_ranks_by_name

REMEDY = (
    'write session.batches(loader, mesh=mesh["dp"]) with the mesh over which the batches are to be dealt, or '
    "session.batches(loader, dp_rank=…, dp_size=…)"
)


@dataclass(frozen=True)
class ReplicaPlace:
    """A place among the replicas.

    Attributes:
        rank: Number of the replica, from 0.
        size: How many there are.
    """

    rank: int
    size: int


@dataclass(frozen=True)
class StatedSharding:
    """What the script says of who gets which batches: a mesh, or a number and a size, or neither."""

    mesh: Any = None
    dp_rank: int | None = None
    dp_size: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the script says nothing."""
        return self.mesh is None and self.dp_rank is None and self.dp_size is None

    def place(self, *, rank: int, world_size: int) -> ReplicaPlace | None:
        """Return the place that is meant, None if the script says nothing.

        Raises:
            UserError: It cannot be one.
        """
        if self.is_empty:
            return None
        if self.mesh is not None:
            if self.dp_rank is not None or self.dp_size is not None:
                raise UserError("batches(mesh=…, dp_rank=…): both say who gets which batches", hint=REMEDY)
            return _place_in(self.mesh, rank=rank, world_size=world_size)
        for name, number in (("dp_rank", self.dp_rank), ("dp_size", self.dp_size)):
            if not isinstance(number, int) or isinstance(number, bool):
                raise UserError(
                    f"batches({name}={number!r:.80}): dp_rank and dp_size are integers, and belong together",
                    hint="dp_rank is the number of this rank's replica, from 0, dp_size how many there are",
                )
        assert self.dp_rank is not None
        assert self.dp_size is not None
        if self.dp_size < 1 or world_size % self.dp_size:
            raise UserError(
                f"batches(dp_size={self.dp_size}): {world_size} ranks are not so many replicas of equal size",
                hint="dp_size is the number of ranks, divided by how many ranks one replica takes",
            )
        if not 0 <= self.dp_rank < self.dp_size:
            raise UserError(f"batches(dp_rank={self.dp_rank}, dp_size={self.dp_size}): out of range")
        return ReplicaPlace(self.dp_rank, self.dp_size)


def _place_in(mesh: Any, *, rank: int, world_size: int) -> ReplicaPlace:
    if not all(hasattr(mesh, name) for name in ("mesh", "ndim", "get_coordinate", "mesh_dim_names")):
        raise UserError(f"batches(mesh={mesh!r:.80}): not a torch DeviceMesh", hint=REMEDY)
    if mesh.get_coordinate() is None:
        raise UserError(f"batches(mesh={mesh!r:.120}): rank {rank} is not part of it", hint=REMEDY)
    try:
        ranks = data_ranks_by_name(mesh, rank)
    except MeshNamesError as error:
        raise UserError(f"batches(mesh=…): it is not known {error}", hint=REMEDY) from None
    if len(ranks) == 1 and 1 < mesh.size() < world_size:
        raise UserError(
            f"batches(mesh={mesh!r:.120}): the mesh has no data-parallel dimension, and not all of the "
            f"{world_size} ranks",
            hint=REMEDY,
        )
    return ReplicaPlace(ranks.index(rank), len(ranks))


def place_of_sampler(loader: Any) -> tuple[ReplicaPlace, bool] | None:
    """Return the place that a loader's sampler was made for, and whether it is looked through.

    None if the sampler has none.
    """
    sampler = getattr(loader, "batch_sampler", None)
    sampler = sampler if sampler is not None else getattr(loader, "sampler", None)
    inner = getattr(sampler, "sampler", sampler)
    rank, size = getattr(inner, "rank", None), getattr(inner, "num_replicas", None)
    if not isinstance(rank, int) or not isinstance(size, int):
        return None
    return ReplicaPlace(rank, size), type(inner) is DistributedSampler
