"""What the nodes of one job tell one another between attempts, through the folder that they share.

The ranks meet by themselves, and lose one another by themselves; so each `trainerd exec` restarts its own.
What is left to say is why a node ended for good: then the others need not wait for it.

Invariants:
    What a node said before this process was started is about an earlier start, and not obeyed.
    No node waits for the others longer than its limit.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import exit_codes, records
from trainerd.contract.durable import make_directory
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import FinishedRecord, NodeEndRecord
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.node_place import Place

MEETING_LIMIT_S: Final = 900.0
"""How long the ranks of this node wait for those of the other nodes, over all attempts since they last met,
in seconds. An engine may need minutes to start the last node, and a program to import."""


@dataclass(frozen=True)
class NodeGroup:
    """The nodes of a job.

    Attributes:
        place: Which one this is, and where its ranks meet the others.
        common: Folder that all nodes share.
        meeting_limit_s: How long they wait for one another, in seconds.
    """

    place: Place
    common: Path
    meeting_limit_s: float = MEETING_LIMIT_S


@dataclass(frozen=True)
class WholeEnd:
    """How the whole job ended, as this node has found out while its ranks waited for the others.

    Attributes:
        code: What to exit with.
        reason: One sentence.
        is_not_now: Whether the others did not come.
    """

    code: int
    reason: str
    is_not_now: bool = False


def whole_end(
    *, is_finished: bool, other: NodeEndRecord | None, waited_s: float, limit_s: float
) -> WholeEnd | None:
    """Return how the job ended, None if its ranks may still meet. Pure.

    Args:
        is_finished: Whether the run is complete under this spec.
        other: How another node has ended since this one was started.
        waited_s: How long the ranks of this node have waited since they last met the others, in seconds.
        limit_s: How long they may.
    """
    if is_finished:
        return WholeEnd(exit_codes.FINISHED, "the run is finished")
    if other is not None:
        return WholeEnd(other.code, f"node {other.node} has ended: {other.reason}")
    if waited_s >= limit_s:
        reason = f"the ranks of the other nodes did not come within {limit_s:g} s"
        return WholeEnd(exit_codes.DRAINED, reason, is_not_now=True)
    return None


def join_common(run: RunPaths, group: NodeGroup | None) -> None:
    """Make the run folder of this node lead to the folder that all nodes share.

    Raises:
        UserError: The run folder is that of another run, or the shared one cannot be made.
    """
    found: Path | None = None
    with contextlib.suppress(OSError):
        found = run.common_link.readlink()
    if group is None:
        if found is not None:
            raise UserError(
                f"{run.root} is that of one node of several, which share {found}",
                hint="give --nnodes and --run, or choose another --state",
            )
        return
    if found is None and (run.checkpoints.exists() or run.metrics.exists()):
        raise UserError(f"{run.root} has a run of one node", hint="choose another --state")
    if found not in {None, group.common}:
        raise UserError(
            f"--run {group.common}: this node has shared {found} before", hint="choose another --state"
        )
    for folder in (group.common, RunPaths(group.common).node_ends, run.root):
        try:
            make_directory(folder)
        except OSError as error:
            raise UserError(
                f"cannot make the folder {folder}: {error.strerror}", hint="choose another --run"
            ) from error
    if found is None:
        run.common_link.symlink_to(group.common)


class OtherNodes:
    """Hears why other nodes have ended, and says it of this one.

    Args:
        place: Which node this is.
        run: Run folder of this node.
        spec_digest: Of the spec under which it runs.
    """

    def __init__(self, place: Place, run: RunPaths, spec_digest: str) -> None:
        self._run = run
        self._node = place.node
        self._spec_digest = spec_digest
        self._others = [node for node in range(place.nodes) if node != place.node]
        self._said_before = {node: self._said(node) for node in self._others}
        with contextlib.suppress(OSError):
            run.node_end(place.node).unlink()

    def ended(self) -> NodeEndRecord | None:
        """Return how another node has ended since this process was started, None if none has."""
        for node in self._others:
            said = self._said(node)
            if said is not None and said != self._said_before[node]:
                return said
        return None

    def is_finished(self) -> bool:
        """Return whether the run is complete under the spec of this node."""
        with contextlib.suppress(OSError, CorruptError):
            finished = records.read(self._run.finished, FinishedRecord)
            return finished is not None and finished.spec_digest == self._spec_digest
        return False

    def say_ended(self, code: int, reason: str) -> None:
        """Tell the others that this node is not to be waited for.

        Raises:
            OSError: It cannot be told.
            SpaceError: The disk is full.
        """
        path = self._run.node_end(self._node)
        make_directory(path.parent)
        records.write(path, NodeEndRecord(self._node, code, reason, secrets.token_hex(8)))

    def _said(self, node: int) -> NodeEndRecord | None:
        with contextlib.suppress(OSError, CorruptError):
            return records.read(self._run.node_end(node), NodeEndRecord)
        return None
