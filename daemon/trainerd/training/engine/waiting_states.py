"""The states of sources in a checkpoint that no source has taken yet, and which source gets which.

A script may loop over its loaders in another order in each epoch, over one alone or over several in step, or
make a loader for each epoch. So between two passes a source is told by its identity; the place at which it is
drawn from decides only where identities do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trainerd.contract.verdict import Reason
from trainerd.training.data.former_owners import put_back_early, without_notes
from trainerd.training.data.passes import Source
from trainerd.training.data.root_identity import kind_of
from trainerd.training.state.live_objects import live_instances

SAME_AS: Final = "same_as"


@dataclass(eq=False)
class WaitingState:
    """The state of one source.

    Attributes:
        state: What `Source.saved` returned.
        of: Identity of the source, None if the checkpoint does not say it.
        is_sure: Whether a source of this identity is this very one.
        places: Where the source was drawn from; empty for a source of former epochs.
    """

    state: dict[str, Any]
    of: str | None = None
    is_sure: bool = False
    places: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it beside the state."""
        return {"of": self.of, "is_sure": self.is_sure}


class WaitingStates:
    """The states of one checkpoint.

    Args:
        suspect: Takes in that a source may have lost its state.
    """

    def __init__(self, suspect: Callable[[Reason], None]) -> None:
        self._suspect = suspect
        self._all: list[WaitingState] = []
        self._alike: set[str] = set()

    def restore(
        self, states: Mapping[str, Any], owners: Mapping[str, Any], former: list[dict[str, Any]]
    ) -> None:
        """Keep what a checkpoint holds: states by place, their owners, and states of former epochs."""
        by_place: dict[str, WaitingState] = {}
        for place, state in states.items():
            if SAME_AS not in state:
                told = owners.get(place, {})
                by_place[place] = WaitingState(state, told.get("of"), told.get("is_sure", False), [place])
        for place, state in states.items():
            if state.get(SAME_AS) in by_place:
                by_place[state[SAME_AS]].places.append(place)
        self._all = [WaitingState(each["state"], each["of"], each["is_sure"]) for each in former]
        self._all += by_place.values()
        known = [each.of for each in self._all if each.of is not None]
        self._alike = {identity for identity in known if known.count(identity) > 1}

    def kinds(self) -> set[str]:
        """Return the classes of the loaders whose states wait, or of their datasets."""
        kinds = {_kind(each.of) for each in self._all if each.of is not None}
        return {kind for kind in kinds if not kind.startswith("builtins.")}

    def at(self, place: str) -> WaitingState | None:
        """Take out the state of the source that was drawn from at a place, None if none waits."""
        return self._take(next((each for each in self._all if place in each.places), None))

    def of(self, source: Source, place: str) -> WaitingState | None:
        """Take out the state of a source that begins a pass, None if none waits.

        Args:
            source: The source, which has not been drawn from in this attempt.
            place: Where it is drawn from now.
        """
        mine = source.identity()
        own = next((each for each in self._all if place in each.places), None)
        if own is not None and own.of in {None, mine}:
            return self._take(own)
        found = next((each for each in self._all if each.of == mine), None)
        if found is None:
            is_of_kind = own is not None and _kind(own.of or "") == _kind(mine)
            return self._take(own) if is_of_kind else None
        self._take(found)
        if mine not in self._alike and (found.is_sure or source.was_there):
            return found
        self._suspect(
            Reason(
                "loader-of-former-epoch",
                _kind(mine),
                "a loader like this one was used in another loop or an earlier epoch: if it is the same one, "
                "what it remembered is lost",
                "use the same loaders in the same order in each epoch, or a stock DataLoader that the script "
                "keeps",
            )
        )
        return None

    def left(self, taken: Mapping[str, Source]) -> Iterator[tuple[list[str], WaitingState]]:
        """Yield the states whose places no source has taken, with these places."""
        for each in self._all:
            if places := [place for place in each.places if place not in taken]:
                yield places, each

    def former(self, taken: Mapping[str, Source]) -> list[dict[str, Any]]:
        """Return the states without a place, of loaders that the script may come back to."""
        waiting = [
            each for each in self._all if each.of is not None and all(place in taken for place in each.places)
        ]
        if not waiting:
            return []
        kinds = {_kind(each.of or "") for each in waiting}
        alive = {kind_of(type(each)) for each in live_instances(lambda kind: kind_of(kind) in kinds)}
        return [
            each.told() | {"state": without_notes(each.state)}
            for each in waiting
            if _kind(each.of or "") in alive
        ]

    def put_back_early(self, *, only_former: bool) -> None:
        """Put datasets and samplers into their former state: code before a loop may change it."""
        for each in self._all:
            if each.is_sure if not each.places else not only_former:
                put_back_early(each.state, self._suspect)

    def _take(self, found: WaitingState | None) -> WaitingState | None:
        if found is not None:
            self._all.remove(found)
        return found


def _kind(identity: str) -> str:
    """Return the class of the dataset or loader that an identity begins with."""
    return identity.partition("|")[0]
