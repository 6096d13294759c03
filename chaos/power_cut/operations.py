"""What a program does to the disk, as far as a power cut can tell the difference.

Files and folders are numbered like inodes, so an operation means the same whatever the file is called by
then. A rename is two operations, which a cut may separate: the new name appears, the old one goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "ROOT",
    "Inode",
    "Link",
    "Mark",
    "Operation",
    "Resize",
    "Symlink",
    "Sync",
    "Trace",
    "Unlink",
    "Write",
    "apply",
    "with_bytes",
    "with_names",
]

ROOT = 0
"""The inode of the folder that everything is in."""


@dataclass(frozen=True)
class Symlink:
    """The content of a link; it is there as soon as its name is."""

    target: str


@dataclass(frozen=True)
class Link:
    """A name appears in a folder, or leads to something else from now on."""

    folder: int
    name: str
    inode: int
    text: str


@dataclass(frozen=True)
class Unlink:
    """A name goes."""

    folder: int
    name: str
    text: str


@dataclass(frozen=True)
class Write:
    """Bytes are written into a file.

    Past the page cache or not makes no difference: neither is durable yet.
    """

    inode: int
    offset: int
    data: bytes = field(repr=False)
    text: str


@dataclass(frozen=True)
class Resize:
    """A file is cut, or grows by zeros."""

    inode: int
    size: int
    text: str


@dataclass(frozen=True)
class Sync:
    """What was done to one file, or to the names in one folder, is durable from now on."""

    inode: int
    text: str


@dataclass(frozen=True)
class Mark:
    """The program says something: `begin`, or that something is done."""

    text: str


Operation: TypeAlias = Link | Unlink | Write | Resize | Sync | Mark

Inode: TypeAlias = "dict[str, int] | bytes | Symlink"
"""A folder's names, a file's content, or a link."""


@dataclass(frozen=True)
class Trace:
    """What was there, durably, and what was done then, in order.

    Attributes:
        inodes: What was there at the beginning, by number. New files and folders are in it too, empty.
        operations: What was done since.
    """

    inodes: dict[int, Inode]
    operations: tuple[Operation, ...]


def apply(inodes: dict[int, Inode], operation: Operation) -> None:
    """Let one operation happen, as if nothing could get lost."""
    if isinstance(operation, Mark | Sync):
        return
    if isinstance(operation, Link | Unlink):
        names = inodes[operation.folder]
        assert isinstance(names, dict)
        inodes[operation.folder] = with_names(names, operation)
        return
    content = inodes[operation.inode]
    assert isinstance(content, bytes)
    inodes[operation.inode] = with_bytes(content, operation)


def with_names(names: dict[str, int], operation: Link | Unlink) -> dict[str, int]:
    """Return a folder's names after one operation."""
    left = {name: inode for name, inode in names.items() if name != operation.name}
    return left | {operation.name: operation.inode} if isinstance(operation, Link) else left


def with_bytes(content: bytes, operation: Write | Resize) -> bytes:
    """Return a file's content after one operation."""
    if isinstance(operation, Resize):
        return content[: operation.size].ljust(operation.size, b"\0")
    end = operation.offset + len(operation.data)
    return content[: operation.offset].ljust(operation.offset, b"\0") + operation.data + content[end:]
