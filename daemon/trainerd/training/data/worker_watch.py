"""What reading samples changes in a worker's copy of the dataset and the collate function.

A counter, the sample before, an augmentation that ramps up: in a worker they are out of reach of the process
that saves, and a resumed attempt has other workers. So a worker sends what changed along with the batch that
changed it, and the process that trains gives it back with the first request to the worker of a later attempt.

Invariants:
    What is sent is small, and of kinds that a checkpoint can hold. Of anything else the path is sent, once.
    After the first batches no value is digested unless it has another length or identity, or the number of
    the batch is a power of two.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trainerd.training.data.attribute_marks import ABSENT, NONE, can_be_saved, is_small, mark_of
from trainerd.training.data.dataset_memory import (
    holds_handles,
    is_container_made_late,
    is_counted,
    values_below,
)
from trainerd.training.data.loader_memory import plain_form, set_attribute
from trainerd.training.state.generators import is_generator

if TYPE_CHECKING:
    from trainerd.training.data.read_caches import LostCache, ReadCaches

SENT_BYTES_MAX: Final = 64 << 10
"""What is sent with each batch costs the process that trains time to take in."""
_WATCHED: Final = 3
_NUMBERS: Final = (bool, int, float, complex, str, bytes, type(None))
_OWN_KINDS: Final = frozenset({"builtins", "collections", "itertools"})


class ToldBatch(NamedTuple):
    """A batch of a worker, with what reading it changed there.

    Attributes:
        batch: The batch.
        state: Pickled attributes by path, all that reading has changed so far.
        unsaved: Paths of what reading has changed and no checkpoint can hold, each once.
        caches: Caches of the worker with random values that no checkpoint holds, each once.
    """

    batch: Any
    state: bytes
    unsaved: tuple[str, ...]
    caches: tuple[LostCache, ...] = ()


class WorkerWatch:
    """Watches the attributes below some objects, in the process that reads samples.

    Args:
        roots: The dataset and the collate function, by name.
    """

    def __init__(self, roots: Mapping[str, Any]) -> None:
        self._roots = dict(roots)
        self._number = 0
        self._changed: set[str] = set()
        self._unsaved: set[str] = set()
        self._sent = b""
        self._lost: set[str] = set()
        self._quick: dict[str, Any] = {}
        self._marks: dict[str, str] = {}
        self._look_at_all(self._values())

    def put_back(self, state: bytes) -> None:
        """Give the attributes the values that another worker sent."""
        owners, _ = values_below(self._roots)
        values = pickle.loads(state)  # noqa: S301 - made by the process that started this one
        for path, value in values.items():
            owner, _, name = path.rpartition(".")
            if owner in owners:
                set_attribute(owners[owner], name, value)
                self._changed.add(path)
        self._look_at_all(self._values())

    def look(self, batch: Any, caches: ReadCaches | None = None) -> Any:
        """Return a batch that was read, with what reading it changed, and kept in caches, if anything."""
        self._number += 1
        values = self._values()
        is_full = is_looked_at(self._number)
        new: list[str] = []
        for path in {**self._quick, **values}:
            if path in self._changed or path in self._unsaved:
                continue
            if self._has_changed(path, values, is_full=is_full):
                new += self._sorted_in(path, values)
        self._quick = {path: _quick_mark(value) for path, value in values.items()}
        state = self._state(values, new)
        lost = [each for each in caches.lost(self._changed) if each.path not in self._lost] if caches else []
        if state == self._sent and not new and not lost:
            return batch
        self._sent = state
        self._lost.update(each.path for each in lost)
        return ToldBatch(batch, state, tuple(sorted(new)), tuple(lost))

    def _values(self) -> dict[str, Any]:
        return {path: value for path, value in values_below(self._roots)[1] if not is_generator(value)}

    def _look_at_all(self, values: Mapping[str, Any]) -> None:
        self._quick = {path: _quick_mark(value) for path, value in values.items()}
        self._marks = {path: mark_of(value) for path, value in values.items()}

    def _has_changed(self, path: str, values: Mapping[str, Any], *, is_full: bool) -> bool:
        if path not in values or path not in self._quick:
            return True
        if _quick_mark(values[path]) == self._quick[path] and not is_full:
            return False
        return mark_of(values[path]) != self._marks.get(path, ABSENT)

    def _sorted_in(self, path: str, values: Mapping[str, Any]) -> Iterator[str]:
        """Take in a path that changed; yield it if it cannot be sent and is no file, say, that was opened."""
        value = values.get(path)
        first = self._marks.get(path, ABSENT)
        is_held = path in values and is_small(value) and can_be_saved(mark_of(value))
        if is_held and not is_container_made_late(value, first):
            self._changed.add(path)
            return
        self._unsaved.add(path)
        is_opened = first in {ABSENT, NONE} and not is_counted(value)
        if is_opened or is_cache(value) or holds_handles(value) or path not in values:
            return
        if type(value).__module__ in _OWN_KINDS:
            yield path

    def _state(self, values: Mapping[str, Any], new: list[str]) -> bytes:
        """Return the pickled state; what has become too large is in it no more, and in `new`."""
        sent = {path: plain_form(values[path]) for path in sorted(self._changed) if path in values}
        for path in [path for path, value in sent.items() if not is_small(value)]:
            del sent[path]
            self._changed.discard(path)
            self._unsaved.add(path)
        state = pickle.dumps(sent) if sent else b""
        if len(state) > SENT_BYTES_MAX:
            largest = max(sent, key=lambda path: len(pickle.dumps(sent[path])))
            self._changed.discard(largest)
            self._unsaved.add(largest)
            if not is_cache(sent[largest]):
                new.append(largest)
            return self._state(values, new)
        return state


def is_looked_at(number: int) -> bool:
    """Tell whether all that a batch may have changed is looked at: the first ones, then ever fewer."""
    return number <= _WATCHED or number & (number - 1) == 0


def is_cache(value: Any) -> bool:
    """Tell whether a value looks like samples that are kept by their index: they can be read again."""
    return isinstance(value, dict | list) and not is_small(value)


def _quick_mark(value: Any) -> Any:
    if type(value) in _NUMBERS:
        return value
    return (id(value), len(value)) if isinstance(value, dict | list | set | tuple | deque) else id(value)
