"""Notes that reading samples changes attributes of a dataset, wherever it is read: here or in workers.

For loops that are not ours: their batches go through the framework, and nothing can come with them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.verdict import Reason
from trainerd.training.data.attribute_marks import NONE, can_be_saved, is_small, mark_of
from trainerd.training.data.dataset_memory import values_below
from trainerd.training.data.root_identity import kind_of
from trainerd.training.data.worker_watch import is_looked_at
from trainerd.training.state.generators import is_generator

if TYPE_CHECKING:
    from collections.abc import Callable

NOTE_BYTES: Final = 256
"""Room for the path of one attribute, in bytes; a longer one is cut."""
_GROWING: Final = (dict, list, set)


class ReadNote:
    """The first attribute of a dataset that was seen to change, shared with the workers of its loader.

    Looks at the first batches that each process reads, and at those whose number is a power of two. What was
    None or an empty container at first is taken for what is opened or kept when it is first needed.

    Args:
        dataset: The dataset.
        is_shared: Whether workers read it.
    """

    def __init__(self, dataset: Any, *, is_shared: bool) -> None:
        self.dataset = dataset
        self._note = torch.zeros(NOTE_BYTES, dtype=torch.uint8)
        if is_shared:
            self._note.share_memory_()  # type: ignore[no-untyped-call]
        self._pid = 0
        self._number = 0
        self._marks: dict[str, str] = {}
        self._kept: set[str] = set()

    @property
    def path(self) -> str:
        """Path of the attribute; empty if none has changed."""
        return bytes(self._note.tolist()).rstrip(b"\0").decode(errors="replace") if self._note[0] else ""

    def before_reading(self) -> None:
        """Look at the dataset before this process reads its first batch."""
        if self._pid != os.getpid():
            self._pid, self._number, self._marks, self._kept = os.getpid(), 0, {}, set()
            self._look()

    def after_reading(self) -> None:
        """Note what reading a batch has changed."""
        self._number += 1
        if is_looked_at(self._number) and not self._note[0] and (changed := self._look()):
            name = min(changed).encode()[:NOTE_BYTES]
            self._note[: len(name)] = torch.tensor(list(name), dtype=torch.uint8)

    def _look(self) -> list[str]:
        """Return the paths of small values that are others than at the last look."""
        changed = []
        for path, value in values_below({"dataset": self.dataset})[1]:
            if is_generator(value) or path in self._kept:
                continue
            if isinstance(value, _GROWING) and path not in self._marks and not value:
                self._kept.add(path)
                continue
            mark, former = mark_of(value), self._marks.get(path, NONE)
            self._marks[path] = mark
            if former not in {NONE, mark} and can_be_saved(mark) and is_small(value):
                changed.append(path)
        return changed


class ReadingWatch:
    """Names a dataset that changes as it is read, once.

    Args:
        note: Of the dataset.
        suspect: Takes in that it changes.
    """

    def __init__(self, note: ReadNote, suspect: Callable[[Reason], None]) -> None:
        self._note = note
        self._suspect = suspect
        self._is_told = False

    def look(self) -> None:
        """Say what has changed so far."""
        if self._is_told or not (path := self._note.path):
            return
        self._is_told = True
        self._suspect(
            Reason(
                "dataset-without-state",
                kind_of(type(self._note.dataset)),
                f"its {path.partition('.')[2]} changed as samples were read and is in no checkpoint: the "
                "samples of a resumed epoch may be others",
                "let a sample follow from its index and from random numbers alone",
            )
        )
