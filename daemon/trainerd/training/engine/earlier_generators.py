"""States of the global random generators from before code that a resume within a loop runs again.

The code at the top of an epoch may draw what the whole epoch uses, such as ``order = torch.randperm(n)``. An
attempt that goes on within a loop runs that code again, and it must draw the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trainerd.training.state.rng import capture_rng, restore_rng

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH: Final = "epoch"
_LOOP: Final = "loop"


class EarlierGenerators:
    """The generators when the epoch in progress began, and when its last finished loop ended."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}

    def epoch_begins(self) -> None:
        """Note them: an epoch begins."""
        self._states = {_EPOCH: capture_rng()}

    def loop_ended(self, *, is_late: bool = False) -> None:
        """Note them: a loop has ended.

        Args:
            is_late: Whether the script has run code since, which may have drawn.
        """
        self._states.pop(_LOOP, None)
        if not is_late:
            self._states[_LOOP] = capture_rng()

    def saved(self) -> dict[str, Any]:
        """Return what a checkpoint within a loop holds of them, as a tree."""
        return dict(self._states)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Keep what `saved` returned."""
        self._states = dict(saved)

    def put_back_epoch(self) -> None:
        """Put them back: the script begins the epoch that was interrupted within a loop."""
        self._put_back(_EPOCH)

    def put_back_loop(self) -> None:
        """Put them back: the last finished loop is skipped."""
        self._put_back(_LOOP)

    def _put_back(self, name: str) -> None:
        if name in self._states:
            restore_rng(self._states[name])
