"""Keeps a checkpoints folder as large as it should be: carries out retention, makes room, points the links.

The caller holds the writers' lock.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.links import LAST, best_link_name, update_links
from trainerd.checkpoint.removal import Remover, rename_for_removal
from trainerd.checkpoint.retention import best_of
from trainerd.checkpoint.space import MARGIN_BYTES, free_bytes, release_reserve, shortage_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.checkpoint.retention import RetentionPlan
    from trainerd.contract.policy import RetentionPolicy

__all__ = ["Housekeeping", "policy_for_the_others"]

REMOVAL_WAIT_S: Final = 30.0
"""How long to wait for deletions that go on already, before saying that there is no room, in seconds."""


class Housekeeping:
    """The effects of retention on one folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._remover = Remover()

    def carry_out(self, plan: RetentionPlan, *, in_background: bool) -> None:
        """Delete what the plan does not keep. A checkpoint that is being read stays."""
        self._remove((decision.name for decision in plan.prune), in_background=in_background)

    def wait_for_removals(self, *, limit_s: float) -> bool:
        """Wait for deletions in the background, `limit_s` seconds at most; return whether they are done."""
        return self._remover.wait(limit_s=limit_s)

    def make_room(self, needed_bytes: int, early: RetentionPlan, *, is_emergency: bool) -> None:
        """See to it that `needed_bytes` will fit: prune what `early` allows, no more than it takes.

        Raises:
            SpaceError: It would not fit.
        """
        if not self.has_room(needed_bytes):
            self._remover.wait(limit_s=REMOVAL_WAIT_S)
        for decision in early.prune:
            if self.has_room(needed_bytes):
                return
            self._remove([decision.name], in_background=False)
        if is_emergency and not self.has_room(needed_bytes):
            release_reserve(self._directory)
        if not self.has_room(needed_bytes):
            raise shortage_error(
                self._directory, needed_bytes=needed_bytes, available_bytes=free_bytes(self._directory)
            )

    def has_room(self, needed_bytes: int) -> bool:
        """Return whether a save of that size would fit now."""
        return free_bytes(self._directory) >= needed_bytes + MARGIN_BYTES

    def point_links(self, present: Sequence[Checkpoint], policy: RetentionPolicy) -> None:
        """Let ``last`` and ``best-<metric>`` lead to what they say."""
        links: dict[str, str | None] = {LAST: present[-1].name if present else None}
        for rule in policy.keep_best:
            best = best_of(present, rule)
            links[best_link_name(rule.metric)] = best.name if best is not None else None
        update_links(self._directory, links)

    def _remove(self, names: Iterable[str], *, in_background: bool) -> None:
        renamed = [rename_for_removal(self._directory / name) for name in names]
        self._remover.remove([path for path in renamed if path is not None], in_background=in_background)


def policy_for_the_others(policy: RetentionPolicy) -> RetentionPolicy:
    """Return the policy as it falls on those present once there is one more checkpoint."""
    if policy.keep_last is None:
        return policy
    return dataclasses.replace(policy, keep_last=max(0, policy.keep_last - 1))
