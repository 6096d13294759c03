"""Where the batches of each training loop of an epoch come from, and what a checkpoint holds of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.training.data.passes import Source
    from trainerd.training.engine.position import Position

SOURCES_FORM: Final = 2
"""Checkpoints of form 1 hold the states of stateful loaders alone."""
_SAME_AS: Final = "same_as"


class LoopSources:
    """The sources of the training loops of an epoch, by the loop's number."""

    def __init__(self) -> None:
        self._by_loop: dict[int, Source] = {}
        self._states: dict[str, Any] = {}
        self._same: dict[str, list[int]] = {}

    def use(self, loop: int, source: Source, *, done: int) -> None:
        """A loop begins to draw from a source, which gets back the state that it had.

        Args:
            loop: Number of the loop.
            source: The source.
            done: How many batches of the loop are done.
        """
        self._by_loop[loop] = source
        for other in self._same.pop(str(loop), ()):
            self._by_loop.setdefault(other, source)
        source.begin(self._taken(str(loop)), done)

    def extents(self) -> dict[str, dict[str, int]]:
        """Return what must not change in the middle of a loop, by loop."""
        return {str(loop): source.extent() for loop, source in sorted(self._by_loop.items())}

    def saved(self, position: Position) -> dict[str, Any]:
        """Return what a checkpoint at a boundary must hold of all sources, as a tree.

        A source of several loops is in one state, which is there once.
        """
        in_progress = self._by_loop.get(position.loop) if position.batch else None
        first: dict[int, int] = {}
        found: dict[str, Any] = {}
        for loop, source in sorted(self._by_loop.items()):
            if id(source) in first:
                found[str(loop)] = {_SAME_AS: str(first[id(source)])}
            elif state := source.saved(position.batch if source is in_progress else None):
                first[id(source)] = loop
                found[str(loop)] = state
        # States that no source has taken yet: of loops that this attempt has not come to.
        return {key: state for key, state in self._states.items() if key not in found} | found

    def restore(self, saved: Mapping[str, Any], *, form: int) -> None:
        """Keep what `saved` returned until the sources are used."""
        groups: dict[str, list[int]] = {}
        for loop, state in saved.items():
            first = state[_SAME_AS] if form > 1 and _SAME_AS in state else loop
            groups.setdefault(first, []).append(int(loop))
        self._same = {str(loop): group for group in groups.values() for loop in group}
        self._states = dict(saved) if form > 1 else {loop: {"loader": state} for loop, state in saved.items()}

    def clear(self) -> None:
        """Let go of the sources."""
        self._by_loop.clear()

    def _taken(self, loop: str) -> Any:
        state = self._states.pop(loop, None)
        if state is not None and _SAME_AS in state:
            return self._states.pop(state[_SAME_AS], None)
        return state
