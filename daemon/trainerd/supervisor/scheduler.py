"""Who may start: pure. Priority first, then who has waited longest.

A job that does not fit keeps what it asks for reserved from those behind it, so that a stream of small jobs
cannot starve a large one; those who need nothing that it waits for may pass.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trainerd.contract.counted import counted
from trainerd.contract.policy import Group, Resources
from trainerd.supervisor.attempt.gpus import find_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_GIB = 1024**3


class Limits(Protocol):
    """What is configured; None is whatever the machine has."""

    @property
    def max_jobs(self) -> int | None: ...
    @property
    def cpus(self) -> float | None: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def gpus(self) -> Sequence[int] | None: ...


@dataclass(frozen=True)
class Capacity:
    """What the machine has for jobs.

    Attributes:
        cpus: Cores.
        gpus: How many GPUs.
        memory_bytes: None is no limit.
        max_jobs: How many jobs may run at once; None is no limit.
        gpu_indices: Which GPUs; None is the first `gpus`.
    """

    cpus: float
    gpus: int = 0
    memory_bytes: int | None = None
    max_jobs: int | None = None
    gpu_indices: tuple[int, ...] | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The GPUs' indices."""
        return tuple(range(self.gpus)) if self.gpu_indices is None else self.gpu_indices


class SlotOwner(NamedTuple):
    """What a live attempt occupies, and which GPUs."""

    resources: Resources
    gpus: tuple[int, ...] = ()
    group: str | None = None


class Request(NamedTuple):
    """A job that waits for a slot. A tuple, as one is made for each of thousands, many times a second.

    Attributes:
        name: The job.
        resources: What it asks for.
        priority: Higher goes first.
        since_wall_s: Since when it waits, seconds since the epoch.
        group: Of which only so many run at once; None is none.
    """

    name: str
    resources: Resources
    priority: int = 0
    since_wall_s: float = 0.0
    group: Group | None = None


@dataclass(frozen=True)
class Schedule:
    """Answer to all jobs that wait.

    Attributes:
        grants: Who may start now, with the GPUs each gets, in order.
        misfits: Why each of these will never fit.
        explain: Returns `waits`.
    """

    grants: tuple[tuple[str, tuple[int, ...]], ...] = ()
    misfits: Mapping[str, str] = field(default_factory=dict)
    explain: Callable[[], Mapping[str, str]] = field(default=dict, compare=False, repr=False)

    @cached_property
    def waits(self) -> Mapping[str, str]:
        """Why each of the others must wait.

        Put into words on request: with thousands it takes milliseconds.
        """
        return self.explain()


def schedule(capacity: Capacity, owners: Sequence[SlotOwner], requests: Sequence[Request]) -> Schedule:
    """Return who may start now, and why the others may not."""
    queue = sorted(requests, key=lambda one: (-one.priority, one.since_wall_s, one.name))
    grants: list[tuple[str, tuple[int, ...]]] = []
    misfits: dict[str, str] = {}
    _go_through(capacity, owners, queue, grants=grants, misfits=misfits)

    def explain() -> Mapping[str, str]:
        waits: dict[str, str] = {}
        _go_through(capacity, owners, queue, waits=waits)
        return waits

    return Schedule(tuple(grants), misfits, explain)


def _go_through(
    capacity: Capacity,
    owners: Sequence[SlotOwner],
    queue: Sequence[Request],
    *,
    grants: list[tuple[str, tuple[int, ...]]] | None = None,
    misfits: dict[str, str] | None = None,
    waits: dict[str, str] | None = None,
) -> None:
    """Go through the queue in order.

    Note in what is given who may start, who never fits, and why others wait.
    """
    taken = {gpu for owner in owners for gpu in owner.gpus}
    free_gpus = [gpu for gpu in capacity.indices if gpu not in taken]
    free = Free(capacity, owners, len(free_gpus))
    running = Counter(owner.group for owner in owners)
    ahead: str | None = None
    for request in queue:
        wanted = request.resources
        if not ever_fits(capacity, wanted):
            if misfits is not None:
                misfits[request.name] = _misfit(capacity, wanted)
            continue
        group = request.group
        if group is not None and running[group.name] >= group.max_running:
            # It reserves nothing: what it waits for is no room.
            if waits is not None:
                waits[request.name] = group_wait(group, running[group.name])
            continue
        if free.has_room_for(wanted):
            if group is not None:
                running[group.name] += 1
            if grants is not None:
                grants.append((request.name, tuple(free_gpus[: wanted.gpus])))
            del free_gpus[: wanted.gpus]
        elif waits is not None:
            behind = f", behind {ahead}" if ahead is not None else ""
            waits[request.name] = f"waits for {' and '.join(free.lacks(wanted))}{behind}"
            ahead = request.name
        free.take(wanted)


def group_wait(group: Group, running: int) -> str:
    """Return why a job waits for others of its group."""
    return f"waits for its group {group.name}: {running} run, at most {group.max_running} may"


class Free:
    """What is left, less what is reserved; below zero where more is reserved than there is."""

    def __init__(self, capacity: Capacity, owners: Sequence[SlotOwner], gpus: int) -> None:
        self.cpus = capacity.cpus - sum(owner.resources.cpus for owner in owners)
        self.gpus = gpus
        self.memory_bytes: float = inf
        if capacity.memory_bytes is not None:
            held_bytes = sum(owner.resources.memory_bytes or 0 for owner in owners)
            self.memory_bytes = capacity.memory_bytes - held_bytes
        self.jobs: float = inf if capacity.max_jobs is None else capacity.max_jobs - len(owners)

    def has_room_for(self, wanted: Resources) -> bool:
        return (
            self.jobs >= 1
            and wanted.cpus <= max(self.cpus, 0) + _ROUNDING
            and wanted.gpus <= max(self.gpus, 0)
            and (wanted.memory_bytes is None or wanted.memory_bytes <= self.memory_bytes)
        )

    def lacks(self, wanted: Resources) -> list[str]:
        found = []
        if self.jobs < 1:
            found.append("one of the jobs that run to end (max_jobs)")
        if wanted.cpus > max(self.cpus, 0) + _ROUNDING:
            found.append(f"{_cpus(wanted.cpus)} ({max(self.cpus, 0):g} free)")
        if wanted.gpus > max(self.gpus, 0):
            found.append(f"{counted(wanted.gpus, 'gpu')} ({max(self.gpus, 0)} free)")
        memory = wanted.memory_bytes
        if memory is not None and memory > self.memory_bytes:
            found.append(f"{_gib(memory)} of memory ({_gib(max(self.memory_bytes, 0))} free)")
        return found

    def take(self, wanted: Resources, *, jobs: int = 1) -> None:
        self.cpus -= wanted.cpus
        self.gpus -= wanted.gpus
        self.memory_bytes -= wanted.memory_bytes or 0
        self.jobs -= jobs


_ROUNDING = 1e-9
"""Ten times a tenth of a cpu is a cpu."""


def ever_fits(capacity: Capacity, wanted: Resources) -> bool:
    """Return whether the machine is large enough for what is asked for."""
    return (
        wanted.cpus <= capacity.cpus + _ROUNDING
        and wanted.gpus <= capacity.gpus
        and (wanted.memory_bytes or 0) <= (inf if capacity.memory_bytes is None else capacity.memory_bytes)
    )


def _misfit(capacity: Capacity, wanted: Resources) -> str:
    if wanted.cpus > capacity.cpus + _ROUNDING:
        return f"it asks for {_cpus(wanted.cpus)} and the machine has {capacity.cpus:g}"
    if wanted.gpus > capacity.gpus:
        return f"it asks for {counted(wanted.gpus, 'gpu')} and the machine has {capacity.gpus}"
    return (
        f"it asks for {_gib(wanted.memory_bytes or 0)} of memory "
        f"and the machine has {_gib(capacity.memory_bytes or 0)}"
    )


def _cpus(count: float) -> str:
    return "1 cpu" if count == 1 else f"{count:g} cpus"


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / _GIB:.2f} GiB"


def machine_capacity(limits: Limits | None = None) -> Capacity:
    """Return what there is for jobs: what is configured, else what this machine has.

    Args:
        limits: What is configured; None is nothing.
    """
    cpus = limits.cpus if limits is not None else None
    memory_bytes = limits.memory if limits is not None else None
    indices = limits.gpus if limits is not None else None
    if indices is None:
        indices = find_gpus().indices()
    return Capacity(
        cpus=float(len(os.sched_getaffinity(0))) if cpus is None else cpus,
        gpus=len(indices),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if memory_bytes is None
        else memory_bytes,
        max_jobs=limits.max_jobs if limits is not None else None,
        gpu_indices=tuple(indices),
    )
