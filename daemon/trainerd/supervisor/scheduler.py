"""Who may start: pure. Priority first, then who has waited longest.

A job that does not fit keeps what it asks for reserved from those behind it, so that a stream of small jobs
cannot starve a large one; those who need nothing that it waits for may pass.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from trainerd.contract.policy import Resources
from trainerd.supervisor.gpus import find_gpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


@dataclass(frozen=True)
class Holder:
    """What a live attempt occupies, and which GPUs."""

    resources: Resources
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Request:
    """A job that waits for a slot.

    Attributes:
        name: The job.
        resources: What it asks for.
        priority: Higher goes first.
        since_wall_s: Since when it waits, seconds since the epoch.
    """

    name: str
    resources: Resources
    priority: int = 0
    since_wall_s: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """The answer to everybody who waits.

    Attributes:
        grants: Who may start now, with the GPUs each gets, in order.
        waits: Why each of the others must wait.
        misfits: Why each of these will never fit.
    """

    grants: tuple[tuple[str, tuple[int, ...]], ...] = ()
    waits: Mapping[str, str] = field(default_factory=dict)
    misfits: Mapping[str, str] = field(default_factory=dict)


def schedule(capacity: Capacity, holders: Sequence[Holder], requests: Sequence[Request]) -> Schedule:
    """Return who may start now, and why the others may not."""
    taken = {gpu for holder in holders for gpu in holder.gpus}
    free_gpus = [gpu for gpu in capacity.indices if gpu not in taken]
    free = _Free(
        cpus=capacity.cpus - sum(holder.resources.cpus for holder in holders),
        gpus=len(free_gpus),
        memory_bytes=None
        if capacity.memory_bytes is None
        else capacity.memory_bytes - sum(holder.resources.memory_bytes or 0 for holder in holders),
        jobs=None if capacity.max_jobs is None else capacity.max_jobs - len(holders),
    )
    grants, waits, misfits = [], {}, {}
    ahead: str | None = None
    for request in sorted(requests, key=lambda one: (-one.priority, one.since_wall_s, one.name)):
        misfit = _misfit(capacity, request.resources)
        if misfit is not None:
            misfits[request.name] = misfit
            continue
        lacks = free.lacks(request.resources)
        if lacks:
            behind = f", behind {ahead}" if ahead is not None else ""
            waits[request.name] = f"waits for {' and '.join(lacks)}{behind}"
            ahead = request.name
        else:
            gpus = tuple(free_gpus[: request.resources.gpus])
            del free_gpus[: request.resources.gpus]
            grants.append((request.name, gpus))
        free = free.without(request.resources)
    return Schedule(tuple(grants), waits, misfits)


@dataclass(frozen=True)
class _Free:
    """What is left, less what is reserved; below zero where more is reserved than there is."""

    cpus: float
    gpus: int
    memory_bytes: int | None
    jobs: int | None

    def lacks(self, wanted: Resources) -> list[str]:
        found = []
        if self.jobs is not None and self.jobs < 1:
            found.append("one of the jobs that run to end (max_jobs)")
        if wanted.cpus > max(self.cpus, 0) + _ROUNDING:
            found.append(f"{wanted.cpus:g} cpus ({max(self.cpus, 0):g} free)")
        if wanted.gpus > max(self.gpus, 0):
            found.append(f"{wanted.gpus} gpus ({max(self.gpus, 0)} free)")
        memory = wanted.memory_bytes
        if memory is not None and self.memory_bytes is not None and memory > self.memory_bytes:
            found.append(f"{_gib(memory)} of memory ({_gib(max(self.memory_bytes, 0))} free)")
        return found

    def without(self, wanted: Resources) -> _Free:
        memory = None if self.memory_bytes is None else self.memory_bytes - (wanted.memory_bytes or 0)
        jobs = None if self.jobs is None else self.jobs - 1
        return _Free(self.cpus - wanted.cpus, self.gpus - wanted.gpus, memory, jobs)


_ROUNDING = 1e-9
"""Ten times a tenth of a cpu is a cpu."""


def _misfit(capacity: Capacity, wanted: Resources) -> str | None:
    if wanted.cpus > capacity.cpus + _ROUNDING:
        return f"it asks for {wanted.cpus:g} cpus and the machine has {capacity.cpus:g}"
    if wanted.gpus > capacity.gpus:
        return f"it asks for {wanted.gpus} gpus and the machine has {capacity.gpus}"
    memory = wanted.memory_bytes
    if memory is not None and capacity.memory_bytes is not None and memory > capacity.memory_bytes:
        return f"it asks for {_gib(memory)} of memory and the machine has {_gib(capacity.memory_bytes)}"
    return None


def _gib(size_bytes: int) -> str:
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
