"""Cgroups: whether attempts have some of their own, and whether their memory is counted and limited there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.shim.cgroup_place import find_places
from trainerd.supervisor.attempt.cgroups import why_no_memory
from trainerd.supervisor.doctor.finding import ok, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.shim.cgroup_place import Places
    from trainerd.supervisor.doctor.finding import Finding


def check_cgroups(supervisor_pid: int | None) -> Iterator[Finding]:
    """Look at where a supervisor's attempts have their cgroups.

    Without a supervisor, look at where this program would have them.
    """
    found = find_places("self" if supervisor_pid is None else str(supervisor_pid))
    yield from judge_cgroups(found, why_no_memory(found))


def judge_cgroups(found: Places, no_memory_because: str) -> Iterator[Finding]:
    """Say what attempts have."""
    if found.tree is None:
        yield skipped(
            "cgroups",
            f"attempts have none of their own: {found.why_not}; what a job leaves behind is found by "
            "other ways",
        )
        return
    yield ok("cgroups", f"each attempt has one of its own below {found.tree}")
    if no_memory_because:
        yield skipped(
            "memory limits",
            f"resources.memory reserves and does not limit: {no_memory_because} (systemd/README.md)",
        )
    else:
        yield ok("memory limits", "an attempt that goes beyond its resources.memory is ended by the kernel")
