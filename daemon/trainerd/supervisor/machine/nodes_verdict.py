"""What an engine should do next with a run of several nodes, from what they said for good: pure.

The folder that they share has no record of how an attempt ended: each node keeps those of its own, counts its
own failures, and says here why it left or gave up. A node that says nothing runs, or was ended from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import exit_codes

if TYPE_CHECKING:
    from trainerd.contract.records import NodeEndRecord

_BY_WEIGHT: Final = (exit_codes.NEVER_RETRY, exit_codes.FAILED, exit_codes.DRAINED)
"""What one node said decides for all, in this order: the others left because it did."""


@dataclass(frozen=True)
class NodesSeen:
    """What the nodes of a run have said.

    Attributes:
        ends: Of each node that left or gave up since its last start, by its number.
        has_met: Whether an attempt of all nodes has begun.
    """

    ends: tuple[NodeEndRecord, ...] = ()
    has_met: bool = False


def judge_nodes(seen: NodesSeen, code: int | None) -> tuple[int, str]:
    """Return the exit code that says what to do with a run that has not finished, and why.

    Args:
        seen: What its nodes have said.
        code: What the launcher of all nodes exited with, such as srun; None if it is not known.
    """
    if code == exit_codes.NEVER_RETRY:
        return code, "exit code 93: never retry"
    for weight in _BY_WEIGHT:
        for end in seen.ends:
            if end.code == weight:
                return weight, f"node {end.node} has ended: {end.reason}"
    if code is None and not seen.has_met:
        return exit_codes.DRAINED, "the nodes have not met yet, and none has said that it left or gave up"
    if code is None:
        return exit_codes.DRAINED, "no node has said that it left or gave up: they run, or were killed"
    if code in {exit_codes.DRAINED, exit_codes.FAILED}:
        return code, f"trainerd exec exited with {code}, and no node could say why"
    if code in exit_codes.CANNOT_START:
        return exit_codes.NEVER_RETRY, f"exit code {code}: the command cannot be started as it is"
    if code == exit_codes.FINISHED:
        return exit_codes.FAILED, "exit code 0, and the run is not finished"
    return exit_codes.DRAINED, f"exit code {code}, and no node has said that it left or gave up"
