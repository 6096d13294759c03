"""Where the batches of each training loop of an epoch come from, and what a checkpoint holds of that."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from trainerd.training.data.former_owners import put_back_early, without_notes
from trainerd.training.engine.former_sources import FormerSources
from trainerd.training.state.copied_state import copied_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainerd.contract.verdict import Reason
    from trainerd.training.data.passes import Source
    from trainerd.training.engine.position import Position

LOOPS_MAX: Final = 16
"""From so many loops on within an epoch, only the newest loop over each source is remembered: a script
without epochs has all its loops in one."""
SOURCES_FORM: Final = 2
"""Checkpoints of form 1 hold the states of stateful loaders alone."""
_SAME_AS: Final = "same_as"


class LoopSources:
    """The sources of the training loops of an epoch, by the loop's number.

    Args:
        suspect: Takes in that a source may have lost its state.
    """

    def __init__(self, suspect: Callable[[Reason], None] = lambda _reason: None) -> None:
        self._former = FormerSources(suspect)
        self._by_loop: dict[int, Source] = {}
        self._states: dict[str, Any] = {}
        self._same: dict[str, list[int]] = {}
        self._skipped: dict[
            int, tuple[Source, int]
        ] = {}  # by id; the source is kept, or its id could pass on
        self._begun: weakref.WeakSet[Source] = weakref.WeakSet()
        self._begun_in_step: weakref.WeakSet[Source] = weakref.WeakSet()
        self._held: tuple[Source, int, dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self._by_loop)

    def skip(self, loop: int, source: Source) -> None:
        """A loop that was finished before the checkpoint is skipped: its source may be drawn from again."""
        self._skipped[id(source)] = (source, loop)

    def put_back_skipped(self) -> None:
        """Give the sources of skipped loops what they remembered: the code after the loops uses it."""
        for key, (source, loop) in list(self._skipped.items()):
            put_back = getattr(source, "put_back", None)
            if put_back is None:
                continue
            loops = [loop, *self._same.pop(str(loop), ())]
            state = self._taken(str(loop))
            if state is not None:
                put_back(state)
                del self._skipped[key]
                for other in loops:
                    self._by_loop.setdefault(other, source)

    def use(self, loop: int, source: Source, *, done: int) -> None:
        """A loop begins to draw from a source, which gets back the state that it had.

        Args:
            loop: Number of the loop.
            source: The source.
            done: How many batches of the loop are done.
        """
        state = self._taken(str(loop))
        loops = [loop, *self._same.pop(str(loop), ())]
        skipped = self._skipped.pop(id(source), None)
        if state is None and skipped is not None:
            state = self._taken(str(skipped[1]))
            loops += [skipped[1], *self._same.pop(str(skipped[1]), ())]
        state = self._former.exchanged(str(loop), source, state, done=done)
        self._held = None
        self._note(loop, source)
        for other in loops:
            self._by_loop.setdefault(other, source)
        source.begin(self._not_begun(source, state), done)

    def _not_begun(self, source: Source, state: Any) -> Any:
        """Return what is to be put back of a source: nothing of one that was drawn from in this attempt.

        Loops that draw from several sources in step have an entry each, in which one source may be more
        than once.
        """
        parts = _drawn_from(source)
        is_in_step = parts != (source,)
        if state is not None and is_in_step:
            begun = {str(number) for number, part in enumerate(parts) if part in self._begun}
            state = {name: each for name, each in state.items() if name not in begun}
        elif source in self._begun_in_step:
            state = None
        self._begun.update(parts)
        self._begun_in_step.update(parts if is_in_step else ())
        return state

    def _note(self, loop: int, source: Source) -> None:
        if loop >= LOOPS_MAX:
            for number in [number for number, other in self._by_loop.items() if other is source]:
                if number >= LOOPS_MAX:
                    del self._by_loop[number]
        former = self._by_loop.get(loop)
        self._by_loop[loop] = source
        if former is not None and former is not source:
            self._former.follow(source, former)

    def extents(self) -> dict[str, dict[str, int]]:
        """Return what must not change in the middle of a loop, by loop."""
        return {str(loop): source.extent() for loop, source in sorted(self._by_loop.items())}

    def hold(self, source: Source, done: int) -> None:
        """Keep what a checkpoint holds of a source: the next batch is fetched before the boundary is crossed.

        Args:
            source: The source of the loop in progress.
            done: How many batches of the loop are done at that boundary.
        """
        self._held = (source, done, copied_state(source.saved(done)))

    def saved(self, position: Position) -> dict[str, Any]:
        """Return what a checkpoint at a boundary must hold of all sources, as a tree.

        A source of several loops is in one state, which is there once.
        """
        in_progress = self._by_loop.get(position.loop) if position.batch else None
        first: dict[tuple[Source, ...], int] = {}
        found: dict[str, Any] = {}
        for loop, source in sorted(self._by_loop.items()):
            drawn_from = _drawn_from(source)
            if drawn_from in first:
                found[str(loop)] = {_SAME_AS: str(first[drawn_from])}
            elif state := (
                self._state_of(in_progress, position.batch)
                if in_progress is not None and drawn_from == _drawn_from(in_progress)
                else source.saved(None)
            ):
                first[drawn_from] = loop
                found[str(loop)] = state
        # States that no source has taken yet: of loops that this attempt has not come to.
        left = {key: without_notes(state) for key, state in self._states.items() if key not in found}
        return left | found

    def _state_of(self, source: Source, done: int) -> dict[str, Any]:
        if self._held is not None and self._held[:2] == (source, done):
            return self._held[2]
        return source.saved(done)

    def saved_of_former(self) -> dict[str, Any]:
        """Return what a checkpoint holds of sources of former epochs, as a tree; empty if there are none."""
        return self._former.saved(self._by_loop)

    def restore(
        self, saved: Mapping[str, Any], *, form: int, former: Mapping[str, Any] | None = None
    ) -> None:
        """Keep what `saved` and `saved_of_former` returned until the sources are used."""
        self._former.restore(former or {})
        groups: dict[str, list[int]] = {}
        for loop, state in saved.items():
            first = state[_SAME_AS] if form > 1 and _SAME_AS in state else loop
            groups.setdefault(first, []).append(int(loop))
        self._same = {str(loop): group for group in groups.values() for loop in group}
        self._states = dict(saved) if form > 1 else {loop: {"loader": state} for loop, state in saved.items()}

    def put_back_early(self, suspect: Callable[[Reason], None]) -> None:
        """Put datasets and samplers into their former state before the script comes to the loop over them.

        To be called where it goes on between two epochs.
        """
        for state in self._states.values():
            if _SAME_AS not in state:
                put_back_early(state, suspect)
        self._former.put_back_early()

    def generators(self) -> Iterator[Any]:
        """Yield the random generators whose state is saved with the sources."""
        for source in self._by_loop.values():
            yield from source.generators()

    def clear(self) -> None:
        """Let go of the sources."""
        self._held = None
        self._by_loop.clear()
        self._former.clear()
        self._skipped.clear()

    def _taken(self, loop: str) -> Any:
        state = self._states.pop(loop, None)
        if state is not None and _SAME_AS in state:
            return self._states.pop(state[_SAME_AS], None)
        return state


def _drawn_from(source: Source) -> tuple[Source, ...]:
    """Return the sources that one draws from in step, which is made for each loop; of any other, itself."""
    parts: tuple[Source, ...] = getattr(source, "parts", (source,))
    return parts
