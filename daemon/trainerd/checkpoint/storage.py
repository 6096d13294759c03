"""What another place must be able to do to hold checkpoints: a disk, a bucket, a test's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trainerd.checkpoint.checkpoint_names import MANIFEST_NAME, is_plain_file_name
from trainerd.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Storage", "check_folder_name", "checked_files"]


class Storage(Protocol):
    """Folders of files, each there as a whole or not at all.

    A folder is committed by its manifest, which is put last. What has no manifest yet is invisible to every
    method but `sweep`. One writer at a time; readers as many as like. `tests/contract/storage` says it in
    full, and every implementation passes it.
    """

    def folders(self) -> tuple[str, ...]:
        """Return the names of the committed folders, sorted."""
        ...

    def files(self, folder: str) -> dict[str, int]:
        """Return the files of a folder with their sizes in bytes.

        Raises:
            FileNotFoundError: There is no such committed folder.
        """
        ...

    def read(self, folder: str, name: str) -> Iterator[bytes]:
        """Yield the content of a file, piece by piece.

        Raises:
            FileNotFoundError: There is no such file in a committed folder.
        """
        ...

    def put(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | bytearray | memoryview]]]) -> None:
        """Write a folder; the manifest comes last and commits it. If anything fails, there is no such folder.

        Raises:
            FileExistsError: There is one of that name.
            SpaceError: There is no room.
        """
        ...

    def remove(self, folder: str) -> None:
        """Remove a folder: invisible at once, then deleted. One that is not there is fine."""
        ...

    def sweep(self) -> tuple[str, ...]:
        """Delete what an interrupted `put` or `remove` left; return the names.

        Only while no other process writes.
        """
        ...


def check_folder_name(folder: str) -> str:
    """Return `folder` if it can name one: plain, and not hidden."""
    if not is_plain_file_name(folder):
        raise InternalError(f"{folder!r} cannot name a folder of a storage")
    return folder


def checked_files(
    files: Iterable[tuple[str, Iterable[bytes | bytearray | memoryview]]],
) -> Iterator[tuple[str, Iterable[bytes | bytearray | memoryview]]]:
    """Yield `files`, insisting that the manifest is the last of them and that no name leads elsewhere."""
    is_complete = False
    for name, parts in files:
        if is_complete:
            raise InternalError(f"{name!r} comes after the manifest")
        is_complete = name == MANIFEST_NAME
        if not is_complete and not is_plain_file_name(name):
            raise InternalError(f"{name!r} cannot name a file of a checkpoint")
        yield name, parts
    if not is_complete:
        raise InternalError("a folder without a manifest cannot be committed")
