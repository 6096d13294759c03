"""Several lines of checkpoints in one storage, by a number before their names: ``g2.step-000000120``.

Where one run is trained by one machine after the other, a line may be left: by a fresh run, by going back, by
a machine that returns with an older disk. What it holds stays where it is, and the next line gets the next
number. The first has none, so that its folders are named as on disk.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trainerd.checkpoint.storage import Storage

__all__ = ["GenerationStorage", "generations"]

_NUMBERED: Final = re.compile(r"g([1-9]\d{0,8})\.(.+)")


def generations(storage: Storage) -> list[int]:
    """Return the numbers of the lines of which something is committed, sorted."""
    return sorted({_split(folder)[0] for folder in storage.folders()})


class GenerationStorage:
    """The folders of one line; see `Storage`.

    Args:
        storage: Where all of them are.
        number: Of the line, from 0.
    """

    def __init__(self, storage: Storage, number: int) -> None:
        self._storage = storage
        self._prefix = f"g{number}." if number else ""
        self._number = number

    def folders(self) -> tuple[str, ...]:
        return self._own(self._storage.folders())

    def files(self, folder: str) -> dict[str, int]:
        return self._storage.files(self._prefix + folder)

    def read(self, folder: str, name: str) -> Iterator[bytes]:
        return self._storage.read(self._prefix + folder, name)

    def put(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | bytearray | memoryview]]]) -> None:
        self._storage.put(self._prefix + folder, files)

    def remove(self, folder: str) -> None:
        self._storage.remove(self._prefix + folder)

    def sweep(self) -> tuple[str, ...]:
        """Delete what was left of any line."""
        return self._own(self._storage.sweep())

    def _own(self, folders: Iterable[str]) -> tuple[str, ...]:
        split = map(_split, folders)
        return tuple(sorted([name for number, name in split if number == self._number]))


def _split(folder: str) -> tuple[int, str]:
    found = _NUMBERED.fullmatch(folder)
    return (int(found[1]), found[2]) if found else (0, folder)
