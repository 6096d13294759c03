"""Which share of the batches this rank gets: what the script says, what its models show, or its own rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainerd.contract.counted import counted
from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training.data.map_source import MapSource
from trainerd.training.data.replica_place import REMEDY, ReplicaPlace, StatedSharding, place_of_sampler
from trainerd.training.distributed.joint_buckets import uneven_inputs_error
from trainerd.training.distributed.joint_places import SaidPlace, check_places
from trainerd.training.state.ddp_buckets import tracked_replicas
from trainerd.training.state.ddp_reducer import takes_uneven_inputs
from trainerd.training.state.parallel_meshes import ParallelRanks, parallel_ranks

if TYPE_CHECKING:
    from trainerd.training.data.passes import Source
    from trainerd.training.engine.run_parts import RunParts

_OWN = "or dp_rank=session.rank, dp_size=session.world_size if each rank is to get batches of its own"


class ReplicaPlaces:
    """Finds out the place of this rank among the replicas, for each training loop of a session.

    Args:
        run: The parts of the attempt.
    """

    def __init__(self, run: RunParts) -> None:
        self._run = run
        environment = run.settings.environment
        self._by_rank = ReplicaPlace(environment.rank, environment.world_size)
        self._shown: ParallelRanks | None = None
        self._has_looked = False
        self._said: ReplicaPlace | None = None

    @property
    def by_rank(self) -> ReplicaPlace:
        """The place of a rank that is a replica of its own."""
        return self._by_rank

    def place(
        self, stated: StatedSharding, loaders: tuple[Any, ...], sources: tuple[Source, ...]
    ) -> ReplicaPlace:
        """Return the place for a training loop that is about to begin.

        Args:
            stated: What the script says.
            loaders: What the loop draws from.
            sources: Where the batches of each loader come from.

        Raises:
            UserError: What the script, the models and the samplers say cannot all be right, it is not known
                which ranks get the same batches, or the ranks take uneven inputs.
        """
        world_size = self._by_rank.size
        said = stated.place(rank=self._torch_rank(), world_size=world_size)
        if self._run.ranks is None:
            return self._by_rank
        shown = self._look()
        place = said if said is not None else self._shown_place(shown, loaders)
        for loader, source in zip(loaders, sources, strict=True):
            self._check_sampler(loader, source, place, is_stated=said is not None)
        if said is None and (shown is None or shown.problem is not None):
            place = self._sampler_place(loaders) or place
        self._compare(place, shown)
        return place

    def _torch_rank(self) -> int:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank()
        return self._by_rank.rank

    def _look(self) -> ParallelRanks | None:
        """Look at the tracked models, once: they are the same for the whole attempt."""
        if not self._has_looked:
            self._has_looked = True
            objects = self._run.state.objects
            replicas = list(tracked_replicas(objects))
            if any(map(takes_uneven_inputs, replicas)):
                raise uneven_inputs_error()
            self._shown = parallel_ranks(
                objects,
                replicas,
                rank=self._torch_rank(),
                world_size=self._by_rank.size,
            )
        return self._shown

    def _shown_place(self, shown: ParallelRanks | None, loaders: tuple[Any, ...]) -> ReplicaPlace:
        if shown is None:
            return self._by_rank
        if shown.problem is None:
            return ReplicaPlace(shown.data.index(self._torch_rank()), len(shown.data))
        if self._sampler_place(loaders) is None:
            own = f"; {_OWN}" if len(shown.model) == 1 else ""
            self._refuse(
                f"which of the {self._by_rank.size} ranks get the same batches is not known: {shown.problem}",
                f"{REMEDY}{own}",
            )
        return self._by_rank

    def _sampler_place(self, loaders: tuple[Any, ...]) -> ReplicaPlace | None:
        """Return the place for which a sampler was made, if that is not one of the whole world."""
        found = {place[0] for loader in loaders if (place := place_of_sampler(loader)) is not None}
        found = {place for place in found if place.size != self._by_rank.size}
        if len(found) > 1:
            raise UserError(f"the samplers of the loaders shard differently: {found}", hint=REMEDY)
        return next(iter(found), None)

    def _check_sampler(self, loader: Any, source: Source, place: ReplicaPlace, *, is_stated: bool) -> None:
        """Check a loader that shards by itself, or is said to, against the place."""
        is_dealt_here = isinstance(source, MapSource) and source.is_sharded_here
        found = place_of_sampler(loader)
        name = type(loader).__name__
        if found is None:
            if is_stated and not is_dealt_here and place.size > 1:
                raise UserError(
                    f"batches(mesh=…): this {name} has a state or an order of its own, and each rank gets "
                    "all that it yields",
                    hint="let the data set shard by itself, and leave mesh=, dp_rank= and dp_size= out",
                )
            return
        theirs, is_looked_through = found
        if theirs == place or (is_stated and is_looked_through and is_dealt_here):
            return
        if not is_stated and place == self._by_rank:
            return  # nothing speaks against the sampler
        self._refuse(
            f"the sampler of a {name} shards over {counted(theirs.size, 'rank')} (this one is "
            f"{theirs.rank}), and the ranks are {counted(place.size, 'replica')} (this one is of "
            f"{place.rank}): ranks that compute a step together would get other batches",
            f"leave the sampler out, or make it with num_replicas={place.size} and the number of the "
            'replica, such as rank=mesh["dp"].get_local_rank()',
        )

    def _compare(self, place: ReplicaPlace, shown: ParallelRanks | None) -> None:
        """Compare with what the other ranks say, once: nothing changes later in a program that is right."""
        if self._said is None:
            model = shown.model if shown is not None else (self._torch_rank(),)
            assert self._run.ranks is not None
            said = SaidPlace(place.rank, place.size, model, shown.where if shown is not None else "")
            self._said = place
            problem = check_places(self._run.ranks, said)
            if problem is not None:
                self._refuse(problem, REMEDY)
        elif place.size != self._said.size and shown is not None and len(shown.model) > 1:
            self._refuse(
                f"batches are dealt to {counted(place.size, 'replica')}, and to {self._said.size} before",
                REMEDY,
            )

    def _refuse(self, what: str, remedy: str) -> None:
        if self._run.settings.is_strict:
            raise UserError(what, hint=remedy)
        self._run.suspicions.add(Reason("batches-of-replicas", "session.batches", what, remedy))
