"""Which jobs make room for one of higher priority: pure.

A waiting job that does not fit takes the place of jobs of lower priority, if enough of them run. What drains
already counts as free, so that none is drained for what is on its way; and none is drained where that would
not suffice. Those that were drained wait with their own priority, and go on when there is room.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainerd.contract.policy import Resources
from trainerd.supervisor.scheduler import Free, SlotOwner, ever_fits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.supervisor.scheduler import Capacity, Request


@dataclass(frozen=True)
class Occupant:
    """A job that holds a slot.

    Attributes:
        name: The job.
        owner: What it occupies.
        priority: Of two, the one with the lower priority makes room.
        since_wall_s: Since when it is in its state, seconds since the epoch; of two, the younger makes room.
        is_leaving: Whether it drains already.
        can_leave: Whether it can be asked to.
    """

    name: str
    owner: SlotOwner
    priority: int = 0
    since_wall_s: float = 0.0
    is_leaving: bool = False
    can_leave: bool = True


def preemptions(
    capacity: Capacity, occupants: Sequence[Occupant], requests: Sequence[Request]
) -> tuple[tuple[str, str], ...]:
    """Return which jobs are to drain now, each with the name of the job that needs the room."""
    staying = [each for each in occupants if not each.is_leaving]
    lowest = min((each.priority for each in staying if each.can_leave), default=None)
    if lowest is None:
        return ()
    found: list[tuple[str, str]] = []
    ahead = _Ahead()
    # With thousands of one priority there is nothing to sort.
    higher = [request for request in requests if request.priority > lowest]
    for request in sorted(higher, key=lambda one: (-one.priority, one.since_wall_s, one.name)):
        if not ever_fits(capacity, request.resources) or _is_full(occupants, request):
            continue
        victims = _victims(capacity, staying, ahead, request)
        if victims is not None:
            found += [(each.name, request.name) for each in victims]
            gone = {each.name for each in victims}
            staying = [each for each in staying if each.name not in gone]
        ahead = ahead.with_one_more(request.resources)
    return tuple(found)


@dataclass(frozen=True)
class _Ahead:
    """What the requests that come first take, all together: there may be thousands."""

    jobs: int = 0
    resources: Resources = field(default_factory=lambda: Resources(cpus=0.0))

    def with_one_more(self, wanted: Resources) -> _Ahead:
        mine = self.resources
        memory_bytes = (mine.memory_bytes or 0) + (wanted.memory_bytes or 0)
        return _Ahead(
            self.jobs + 1, Resources(mine.gpus + wanted.gpus, mine.cpus + wanted.cpus, memory_bytes)
        )


def _is_full(occupants: Sequence[Occupant], request: Request) -> bool:
    """Return whether a request waits for others of its group, whatever room there is."""
    group = request.group
    if group is None:
        return False
    return sum(each.owner.group == group.name for each in occupants) >= group.max_running


def _victims(
    capacity: Capacity, staying: Sequence[Occupant], ahead: _Ahead, request: Request
) -> list[Occupant] | None:
    """Return the jobs that have to leave for a request, none if it fits; None if it would not fit then."""
    lower = [each for each in staying if each.can_leave and each.priority < request.priority]
    lower.sort(key=lambda each: (each.priority, -each.since_wall_s, each.name))
    chosen: list[Occupant] = []
    while not _fits(capacity, staying, chosen, ahead, request):
        if len(chosen) == len(lower):
            return None
        chosen.append(lower[len(chosen)])
    # One that was chosen first may not be needed with those after it.
    for each in tuple(reversed(chosen)):
        without = [one for one in chosen if one is not each]
        if _fits(capacity, staying, without, ahead, request):
            chosen = without
    return chosen


def _fits(
    capacity: Capacity,
    staying: Sequence[Occupant],
    leaving: Sequence[Occupant],
    ahead: _Ahead,
    request: Request,
) -> bool:
    gone = {each.name for each in leaving}
    owners = [each.owner for each in staying if each.name not in gone]
    taken = {gpu for owner in owners for gpu in owner.gpus}
    free = Free(capacity, owners, sum(gpu not in taken for gpu in capacity.indices))
    free.take(ahead.resources, jobs=ahead.jobs)
    return free.has_room_for(request.resources)
