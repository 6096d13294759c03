"""Sources that another one has followed as the n-th loop of an epoch: of loaders that take turns by epoch.

What such a loader remembers is part of the run if the script uses it again. A resumed attempt tells it by its
identity, since the number of its loop belongs to the other one.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.verdict import Reason
from trainerd.training.data.root_identity import kind_of
from trainerd.training.state.live_objects import live_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.training.data.passes import Source


_KEPT_MAX: Final = 16
"""States of so many sources are kept: the last ones."""


class FormerSources:
    """The sources of former loops of one attempt, and what a checkpoint holds of such.

    Args:
        suspect: Takes in that a source may have lost its state.
    """

    def __init__(self, suspect: Callable[[Reason], None]) -> None:
        self._suspect = suspect
        self._live: list[weakref.ref[Source]] = []
        self._returned: weakref.WeakSet[Source] = weakref.WeakSet()
        self._states: list[dict[str, Any]] = []
        self._numbered: dict[str, str] = {}

    def follow(self, source: Source, other: Source) -> None:
        """A loop begins to draw from a source, and another one had its number in the former epoch."""
        known = [each() for each in self._live]
        if source in known:
            self._returned.add(source)
        kept = [each for each in (*known, other) if each is not None and each is not source]
        self._live = [weakref.ref(each) for each in dict.fromkeys(kept)]

    def saved(self, by_loop: Mapping[int, Source]) -> dict[str, Any]:
        """Return what a checkpoint holds of all that are no loop of this epoch, as a tree; empty if there are none.

        Args:
            by_loop: The sources that are, by the number of the loop.
        """
        alive = [each for ref in self._live if (each := ref()) is not None and each not in by_loop.values()]
        states = [
            {"of": each.identity(), "state": each.saved(None), "is_sure": self._is_used_again(each)}
            for each in alive
        ]
        waiting = self._waiting() if self._states else []
        if not (states or waiting):
            return {}
        of = {str(loop): source.identity() for loop, source in by_loop.items()}
        return {"states": [*waiting, *states][-_KEPT_MAX:], "of": self._numbered | of}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Keep what `saved` returned until the sources are used."""
        self._states = list(saved.get("states", ()))
        self._numbered = dict(saved.get("of", {}))

    def exchanged(self, loop: str, source: Source, state: Any) -> Any:
        """Return the state of a source that begins a pass.

        Args:
            loop: Number of the loop.
            source: The source.
            state: What the checkpoint holds under that number, None if nothing.
        """
        if not self._states:
            return state
        mine, numbered = source.identity(), self._numbered.pop(loop, None)
        if state is not None and numbered == mine:
            return state
        found = next((each for each in self._states if each["of"] == mine), None)
        if found is None:
            return state
        self._states.remove(found)
        if not found["is_sure"]:
            self._suspect(
                Reason(
                    "loader-of-former-epoch",
                    _kind(mine),
                    "a loader like this one was used in an earlier epoch: if it is the same one, what it remembered "
                    "is lost",
                    "use every loader in each epoch, or a stock DataLoader that the script keeps",
                )
            )
            return state
        if state is not None:
            self._states.append({"of": numbered, "state": state, "is_sure": True})
        return found["state"] or None

    def _waiting(self) -> list[dict[str, Any]]:
        """Return the states that no source has taken yet, of loaders that the script can still come back to."""
        kinds = {_kind(each["of"]) for each in self._states}
        alive = {kind_of(type(each)) for each in live_instances(lambda kind: kind_of(kind) in kinds)}
        return [each for each in self._states if _kind(each["of"]) in alive]

    def _is_used_again(self, source: Source) -> bool:
        """Tell whether the script still has the loader, or has come back to it."""
        return source.ends_with_loader or source in self._returned

    def clear(self) -> None:
        """Let go of the sources."""
        self._live.clear()


def _kind(identity: str) -> str:
    """Return the class of the dataset or loader that an identity begins with."""
    return identity.partition("|")[0]
