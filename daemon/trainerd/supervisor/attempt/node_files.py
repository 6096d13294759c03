"""The run folder of one node of several, as the loop and the monitors use it.

The attempts and their records are this node's; the checkpoints are common to all nodes, and the ranks of all
have agreed on them. So a node other than the first does not look at them to judge an ending: a network
filesystem may not show it yet what rank 0 has committed. It takes its ranks at their word, who have it from
rank 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trainerd.supervisor.attempt.evidence import NOT_LOOKED_AT
from trainerd.supervisor.attempt.run_files import DiskRunFiles

if TYPE_CHECKING:
    from trainerd.contract.node_place import Place
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.records import ExitRecord
    from trainerd.supervisor.attempt.run_files import MonitoredAttempt
    from trainerd.supervisor.machine.outcome import Evidence


class NodeRunFiles(DiskRunFiles):
    """The run folder of a node.

    Args:
        place: Which node it is.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place=place)
        self._is_first = place.node == 0

    def fence(self, run: RunPaths) -> None:
        # Rank 0 publishes the checkpoints of all. To fence it because another node moved would end them all.
        if self._is_first:
            super().fence(run)

    def evidence(
        self,
        attempt: MonitoredAttempt,
        ending: ExitRecord | None,
        *,
        lost_because: str,
        is_after_reboot: bool,
        looks_at_checkpoints: bool,
    ) -> Evidence:
        found = super().evidence(
            attempt,
            ending,
            lost_because=lost_because,
            is_after_reboot=is_after_reboot,
            looks_at_checkpoints=looks_at_checkpoints and self._is_first,
        )
        # The numbers of attempts are the node's own, so a checkpoint is told by its step.
        checkpoint, step = found.checkpoint, found.checkpoint_step
        if not self._is_first:
            said = [each for each in found.outcomes if each is not None and each.checkpoint is not None]
            checkpoint, step = (said[0].checkpoint, said[0].step) if said else (None, None)
        return replace(
            found,
            is_of_several_nodes=True,
            checkpoint=checkpoint,
            checkpoint_step=step,
            is_checkpoint_new=step is not None and step == found.step and found.has_stepped,
            trouble=tuple(each for each in found.trouble if self._is_first or each != NOT_LOOKED_AT),
            # To go back is for all nodes or for none, and no node decides for the others.
            checkpoint_before=None,
        )
