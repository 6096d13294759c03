"""Sources whose number within the epoch a later loop has taken: of loaders that take turns by epoch.

What such a loader remembers is part of the run if the script uses it again. A resumed attempt tells it by its
identity, since the number of its loop belongs to another loader.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.verdict import Reason
from trainerd.training.data.former_owners import put_back_early, without_notes
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
        self._begun: weakref.WeakSet[Source] = weakref.WeakSet()
        self._states: list[dict[str, Any]] = []
        self._numbered: dict[str, dict[str, Any]] = {}
        self._alike: set[str] = set()

    def follow(self, source: Source, other: Source) -> None:
        """A loop begins to draw from a source, and `other` had its number in the former epoch."""
        known = [each() for each in self._live]
        if source in known:
            self._returned.add(source)
        kept = [each for each in (*known, other) if each is not None and each is not source]
        self._live = [weakref.ref(each) for each in dict.fromkeys(kept)]

    def saved(self, by_loop: Mapping[int, Source]) -> dict[str, Any]:
        """Return what a checkpoint holds of all that are no loop of this epoch, as a tree.

        Empty if there are none.

        Args:
            by_loop: The sources that are, by the number of the loop.
        """
        alive = [each for ref in self._live if (each := ref()) is not None and each not in by_loop.values()]
        # A loader that the script makes for each epoch is like the one in use, and may live on for a while.
        in_use = {each.identity() for each in by_loop.values()} if alive else ()
        told = [self._told(each) | {"state": each.saved(None)} for each in alive]
        states = [each for each in told if each["of"] not in in_use]
        waiting = self._waiting() if self._states else []
        if not (states or waiting):
            return {}
        numbered = {str(loop): self._told(source) for loop, source in by_loop.items()}
        return {"states": [*waiting, *states][-_KEPT_MAX:], "numbered": self._numbered | numbered}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Keep what `saved` returned until the sources are used."""
        self._states = list(saved.get("states", ()))
        self._numbered = dict(saved.get("numbered", {}))
        counts = Counter([each["of"] for each in (*self._states, *self._numbered.values())])
        self._alike = {identity for identity, count in counts.items() if count > 1}

    def exchanged(self, loop: str, source: Source, state: Any, *, done: int) -> Any:
        """Return the state of a source that a loop begins to draw from.

        Args:
            loop: Number of the loop.
            source: The source.
            state: What the checkpoint holds under that number, None if nothing.
            done: How many batches of the loop are done: if any, the state is that of this source.
        """
        numbered = self._numbered.pop(loop, None)
        is_first = source not in self._begun
        self._begun.add(source)
        if done:
            self.put_back_early()
        if done or not self._states or not is_first:
            return state
        mine = source.identity()
        found = next((each for each in self._states if each["of"] == mine), None)
        if found is None or (numbered is not None and numbered["of"] == mine):
            return state
        self._states.remove(found)
        if not found["is_sure"] or mine in self._alike:
            self._suspect(
                Reason(
                    "loader-of-former-epoch",
                    _kind(mine),
                    "a loader like this one was used in an earlier epoch: if it is the same one, what it "
                    "remembered is lost",
                    "use every loader in each epoch, or a stock DataLoader that the script keeps",
                )
            )
            return state
        if numbered is not None:
            self._states.append(numbered | {"state": state or {}})
        return found["state"] or None

    def put_back_early(self) -> None:
        """Put the datasets and samplers of all into their former state: code before a loop may change it."""
        for each in self._states:
            if each["is_sure"]:
                put_back_early(each["state"], self._suspect)

    def _waiting(self) -> list[dict[str, Any]]:
        """Return the states that no source has taken yet, of loaders that the script may come back to."""
        kinds = {_kind(each["of"]) for each in self._states}
        alive = {kind_of(type(each)) for each in live_instances(lambda kind: kind_of(kind) in kinds)}
        states = [each for each in self._states if _kind(each["of"]) in alive]
        return [each | {"state": without_notes(each["state"])} for each in states]

    def _told(self, source: Source) -> dict[str, Any]:
        """Return what tells a source, and whether the script still has its loader or has come back to it."""
        is_sure = source.ends_with_loader or source in self._returned
        return {"of": source.identity(), "is_sure": is_sure}

    def clear(self) -> None:
        """Let go of the sources."""
        self._live.clear()


def _kind(identity: str) -> str:
    """Return the class of the dataset or loader that an identity begins with."""
    return identity.partition("|")[0]
