"""What the ranks say of who gets which batches, compared with one another.

No rank waits for it: each compares what it says with what was said before, so the last one sees all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainerd.contract.counted import counted

if TYPE_CHECKING:
    from trainerd.training.distributed.rank_store import Ranks


@dataclass(frozen=True)
class SaidPlace:
    """What one rank says.

    Attributes:
        rank: Number of its replica.
        size: How many replicas there are.
        model: Ranks over which its model is spread, as far as that is known.
        where: What shows that.
    """

    rank: int
    size: int
    model: tuple[int, ...]
    where: str = ""


def contradiction(said: dict[int, SaidPlace], world_size: int) -> str | None:
    """Return what cannot be right about what the ranks have said so far. Pure."""
    for one, place in sorted(said.items()):
        for other, their in sorted(said.items()):
            if place.size != their.size:
                replicas = counted(place.size, "replica")
                return f"rank {one} deals the batches to {replicas}, rank {other} to {their.size}"
            if other in place.model and place.rank != their.rank:
                return (
                    f"ranks {one} and {other} would get other batches, and {place.where} is spread over "
                    "both: they compute each step together"
                )
    if len(said) == world_size:
        size = next(iter(said.values())).size
        ranks_of = Counter(place.rank for place in said.values())
        for number in range(size):
            if ranks_of[number] * size != world_size:
                return (
                    f"of {world_size} ranks, {ranks_of[number]} would get the batches of replica {number} "
                    f"of {size}"
                )
    return None


def check_places(ranks: Ranks, place: SaidPlace) -> str | None:
    """Say this rank's place; return what contradicts those that were said before."""
    ranks.put(f"place/{ranks.rank}", [place.rank, place.size, list(place.model), place.where])
    said = {ranks.rank: place}
    for rank in ranks.others:
        if ranks.has(key := f"place/{rank}"):
            number, size, model, where = ranks.get(key)
            said[rank] = SaidPlace(number, size, tuple(model), where)
    return contradiction(said, ranks.world_size)
