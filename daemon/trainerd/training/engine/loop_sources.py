"""Where the batches of each training loop of an epoch come from, and what a checkpoint holds of that.

A place is the number of a loop, and for loaders that are drawn from in step also the number of the part:
``0``, ``1.0``, ``1.1``. One source may be at several places, and has one state.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from trainerd.training.data.former_owners import without_notes
from trainerd.training.engine.former_sources import FormerSources
from trainerd.training.engine.waiting_states import SAME_AS, WaitingState, WaitingStates
from trainerd.training.state.copied_state import copied_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainerd.contract.verdict import Reason
    from trainerd.training.data.passes import Source
    from trainerd.training.engine.position import Position

LOOPS_MAX: Final = 16
"""From so many loops on within an epoch, only the newest loop over each source is remembered: a script
without epochs has all its loops in one."""
SOURCES_FORM: Final = 3
"""Checkpoints of form 1 hold the states of stateful loaders alone; those of form 2 hold one entry for all
loaders of a loop, and no owners."""
_OF_LOOPS: Final = 2
_KEPT_MAX: Final = 16
"""States of so many sources of former epochs are kept: the last ones."""


class LoopSources:
    """The sources of the training loops of an epoch, by place.

    Args:
        suspect: Takes in that a source may have lost its state.
    """

    def __init__(self, suspect: Callable[[Reason], None] = lambda _reason: None) -> None:
        self._former = FormerSources()
        self._waiting = WaitingStates(suspect)
        self._by_place: dict[str, Source] = {}
        self._noted: set[str] = set()  # loops that this attempt has begun
        # By the id of a source, which is kept, or its id could pass on to another.
        self._skipped: dict[int, tuple[Source, str]] = {}
        self._begun: weakref.WeakSet[Source] = weakref.WeakSet()
        self._held: tuple[Source, int, dict[str, Any]] | None = None
        self._with_state: dict[str, Source] = {}

    def __len__(self) -> int:
        return len(self._by_place)

    def skip(self, loop: int, source: Source) -> None:
        """A loop that was finished before the checkpoint is skipped: its source may be drawn from again."""
        for place, part in _places(loop, source).items():
            self._skipped[id(part)] = (part, place)

    def put_back_skipped(self) -> None:
        """Give the sources of skipped loops what they remembered: the code after the loops uses it."""
        for key, (source, place) in list(self._skipped.items()):
            put_back = getattr(source, "put_back", None)
            if put_back is not None and (found := self._waiting.at(place)) is not None:
                put_back(found.state)
                self._begun.add(source)
                del self._skipped[key]
                self._take_places(source, found)

    def use(self, loop: int, source: Source, *, done: int) -> None:
        """A loop begins to draw from a source, which gets back the state that it had.

        Args:
            loop: Number of the loop.
            source: The source.
            done: How many batches of the loop are done.
        """
        self._held = None
        places = _places(loop, source)
        if done:
            self._waiting.put_back_early(only_former=True)
        found = {place: self._found(place, part, done) for place, part in places.items()}
        self._note(loop, places)
        for place, each in found.items():
            if each is not None:
                self._take_places(places[place], each)
        self._begun.update(places.values())
        states = [each.state if each is not None else None for each in found.values()]
        if _is_in_step(source):
            given = {str(number): state for number, state in enumerate(states) if state is not None}
            source.begin(given or None, done)
        else:
            source.begin(states[0] or None, done)

    def _found(self, place: str, part: Source, done: int) -> WaitingState | None:
        skipped = self._skipped.pop(id(part), None)
        if done:
            return self._waiting.at(place)
        if part in self._begun:
            return None
        found = self._waiting.at(skipped[1]) if skipped is not None else None
        return found if found is not None else self._waiting.of(part, place)

    def _take_places(self, source: Source, found: WaitingState) -> None:
        for place in found.places:
            self._by_place.setdefault(place, source)

    def _note(self, loop: int, places: Mapping[str, Source]) -> None:
        new = set(places.values())
        left = {
            place: each
            for place, each in self._by_place.items()
            if _loop_of(place) == loop or (min(_loop_of(place), loop) >= LOOPS_MAX and each in new)
        }
        for place in left:
            del self._by_place[place]
        self._by_place.update(places)
        self._noted.add(str(loop))
        others = [each for each in left.values() if each not in new]
        if others:
            self._former.follow(new, others)

    def extents(self) -> dict[str, dict[str, int]]:
        """Return what must not change in the middle of a loop, by loop."""
        found: dict[str, dict[str, int]] = {}
        for place, source in sorted(self._by_place.items()):
            loop, _, part = place.partition(".")
            if part and loop not in self._noted:
                continue  # what else it draws from is not known
            prefix = f"{part}." if part else ""
            found.setdefault(loop, {}).update({prefix + name: n for name, n in source.extent().items()})
        return found

    def hold(self, source: Source, done: int) -> None:
        """Keep what a checkpoint holds of a source: the next batch is fetched before the boundary is crossed.

        Args:
            source: The source of the loop in progress.
            done: How many batches of the loop are done at that boundary.
        """
        self._held = (source, done, copied_state(source.saved(done)))

    def saved(self, position: Position) -> dict[str, Any]:
        """Return what a checkpoint at a boundary must hold of all sources, as a tree.

        A source at several places is in one state, which is there once.
        """
        in_progress = {
            each
            for place, each in self._by_place.items()
            if position.batch and _loop_of(place) == position.loop
        }
        first: dict[Source, str] = {}
        found: dict[str, Any] = {}
        for place, source in sorted(self._by_place.items(), key=lambda item: _order(item[0])):
            if source in first:
                found[place] = {SAME_AS: first[source]}
            elif state := self._state_of(source, position.batch if source in in_progress else None):
                first[source] = place
                found[place] = state
        self._with_state = {place: source for source, place in first.items()}
        # States that no source has taken yet: of loops that this attempt has not come to.
        for places, each in self._waiting.left(self._by_place):
            found[places[0]] = without_notes(each.state)
            found |= {place: {SAME_AS: places[0]} for place in places[1:]}
        return found

    def owners(self) -> dict[str, Any]:
        """Return what tells the sources whose states `saved` returned last, by place."""
        found = {place: self._former.told(source) for place, source in self._with_state.items()}
        left = {places[0]: each for places, each in self._waiting.left(self._by_place)}
        return found | {place: each.told() for place, each in left.items() if each.of is not None}

    def _state_of(self, source: Source, done: int | None) -> dict[str, Any]:
        if self._held is None or self._held[1] != done:
            return source.saved(done)
        held, _, state = self._held
        if held is source:
            return state
        parts: tuple[Source, ...] = getattr(held, "parts", ())
        if source not in parts:
            return source.saved(done)
        part: dict[str, Any] = state.get(str(parts.index(source)), {})
        return part

    def saved_of_former(self) -> dict[str, Any]:
        """Return what a checkpoint holds of sources of former epochs, as a tree; empty if there are none."""
        states = [
            *self._waiting.former(self._by_place),
            *self._former.saved(list(self._by_place.values())),
        ]
        return {"states": states[-_KEPT_MAX:]} if states else {}

    def restore(
        self,
        saved: Mapping[str, Any],
        *,
        form: int,
        former: Mapping[str, Any] | None = None,
        owners: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what `saved`, `saved_of_former` and `owners` returned until the sources are used."""
        former = former or {}
        states = dict(saved) if form > 1 else {loop: {"loader": state} for loop, state in saved.items()}
        if form == _OF_LOOPS:
            states = _by_place(states)
        told = owners if owners is not None else former.get("numbered", {})
        self._waiting.restore(states, told, list(former.get("states", ())))

    def kinds_that_wait(self) -> set[str]:
        """Return the classes of the loaders whose states no source has taken yet."""
        return self._waiting.kinds()

    def put_back_early(self) -> None:
        """Put datasets and samplers into their former state before the script comes to the loop over them.

        To be called where it goes on between two epochs.
        """
        self._waiting.put_back_early(only_former=False)

    def all(self) -> list[Source]:
        """Return the sources of this epoch."""
        return list(self._by_place.values())

    def generators(self) -> Iterator[Any]:
        """Yield the random generators whose state is saved with the sources."""
        for source in self._by_place.values():
            yield from source.generators()

    def clear(self) -> None:
        """Let go of the sources."""
        self._held = None
        self._by_place.clear()
        self._with_state.clear()
        self._former.clear()
        self._skipped.clear()


def _by_place(states: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of a checkpoint of form 2 by place: there, one entry holds those of all parts."""
    found: dict[str, Any] = {}
    for loop, state in states.items():
        parts = states.get(state[SAME_AS], {}) if SAME_AS in state else state
        if not (parts and all(map(str.isdigit, parts))):
            found[loop] = state
            continue
        for number, part in parts.items():
            is_same = SAME_AS in state
            found[f"{loop}.{number}"] = {SAME_AS: f"{state[SAME_AS]}.{number}"} if is_same else part
    return found


def _is_in_step(source: Source) -> bool:
    return hasattr(source, "parts")


def _places(loop: int, source: Source) -> dict[str, Source]:
    """Return the sources that a loop draws from, by place."""
    parts: tuple[Source, ...] | None = getattr(source, "parts", None)
    if parts is None:
        return {str(loop): source}
    return {f"{loop}.{number}": part for number, part in enumerate(parts)}


def _loop_of(place: str) -> int:
    return int(place.partition(".")[0])


def _order(place: str) -> tuple[int, int]:
    loop, _, part = place.partition(".")
    return int(loop), int(part or -1)
