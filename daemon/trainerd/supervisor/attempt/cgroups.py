"""The supervisor's part in cgroups: the ground on which the shims make theirs, and what a crash left there.

Invariants: this process never moves. A cgroup of version 2 that gives controllers on must hold no process,
and then systemd cannot start the next supervisor in it while jobs of this one live (docs/decisions/0015). So
memory is counted and limited where the supervisor was put into a leaf of its own beforehand
(`DelegateSubgroup=`), or where memory has a hierarchy of its own (version 1).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from trainerd.contract import records
from trainerd.contract.records import ShimRecord
from trainerd.errors import TrainerdError
from trainerd.shim.cgroup import PREFIX, folders_of
from trainerd.shim.cgroup_members import remove_empty
from trainerd.shim.cgroup_place import find_places
from trainerd.shim.standby_cgroup import remove_left_behind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainerd.contract.paths import StatePaths
    from trainerd.shim.cgroup_place import Places

_SUBTREE: Final = "cgroup.subtree_control"
_log = structlog.get_logger(__name__)


def prepare_cgroups(state: StatePaths) -> None:
    """Have memory counted below this place, if possible, and remove what ended attempts left there."""
    found = find_places()
    if found.tree is None:
        _log.info("supervisor.no-cgroups", reason=found.why_not)
        return
    swept = [str(folder) for place in (found.tree, found.memory) if place for folder in _sweep(place, state)]
    _give_memory_on(found.tree)
    reason = why_no_memory(found)
    _log.info("supervisor.cgroups", place=str(found.tree), memory=reason or "counted", swept=swept)


def why_no_memory(found: Places) -> str:
    """Return why memory of attempts is neither counted nor limited; empty if it is."""
    if found.memory is not None or (found.tree is not None and "memory" in _words(found.tree / _SUBTREE)):
        return ""
    if found.why_no_memory:
        return found.why_no_memory
    if found.tree is None:
        return found.why_not
    if "memory" not in _words(found.tree / "cgroup.controllers"):
        return f"the controller of memory is not delegated to {found.tree}"
    return f"{found.tree} holds processes, so it cannot give the controller of memory on"


def _give_memory_on(tree: Path) -> None:
    # The kernel refuses while a process is in there, this one for instance, and that is as well.
    if "memory" in _words(tree / "cgroup.controllers") and "memory" not in _words(tree / _SUBTREE):
        with contextlib.suppress(OSError):
            (tree / _SUBTREE).write_text("+memory", "ascii")


def _words(file: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        return file.read_text("ascii").split()
    return []


def _sweep(place: Path, state: StatePaths) -> Iterator[Path]:
    """Remove the empty cgroups of attempts that are over, by our own records; yield which those were.

    One of an attempt without an exit record is its own business: a look that finds the attempt lost ends
    all in it. One that no record of ours names is another supervisor's.
    """
    for folder in place.glob(f"{PREFIX}*-*-*-*"):
        job, number, *_ = folder.name.removeprefix(PREFIX).rsplit("-", 3)
        with contextlib.suppress(TrainerdError, OSError, ValueError):
            yield from remove_left_behind(state.run(job).standby)
            paths = state.run(job).attempt(int(number))
            record = records.read(paths.shim, ShimRecord)
            is_ours = record is not None and folder in folders_of(record)
            if is_ours and paths.exit.exists() and remove_empty(folder):
                yield folder
