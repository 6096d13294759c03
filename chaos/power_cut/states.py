"""Every state of the disk that a cut may leave while a recorded program runs.

A cut may come between any two operations. What was not synced by then is there or not, each part by itself,
so a state that lacks the newest operations is one of the states that an earlier cut leaves: looking just
before each sync and each mark, and at the end, sees all of them. Equal states are shown once for each thing
that had been done by then.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from chaos.power_cut.contents import file_contents, folder_names
from chaos.power_cut.operations import (
    ROOT,
    Inode,
    Link,
    Mark,
    Resize,
    Symlink,
    Sync,
    Trace,
    Unlink,
    Write,
    apply,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["CutState", "cut_states", "names_of", "write_state"]

Tree: TypeAlias = "tuple[tuple[str, Tree | bytes | Symlink], ...]"
"""A folder: names, sorted, each with a folder, a file's content, or a link."""

SAMPLED: Final = 20_000
"""At most so many states are built at one moment; of more, a seeded sample. What was sampled is said."""


@dataclass(frozen=True)
class CutState:
    """One state of the disk after a cut.

    Attributes:
        tree: What is on the disk.
        done: What the program had reported by then.
        moment: The operation that the cut came before.
        is_sampled: Whether there were too many states at this moment to try each.
    """

    tree: Tree
    done: tuple[str, ...]
    moment: str
    is_sampled: bool


def cut_states(trace: Trace, *, seed: int = 0) -> Iterator[CutState]:
    """Yield every state, each once for each `done`.

    The latest moments come first, as they have most to lose.
    """
    seen: set[int] = set()
    for disk, done, moment in reversed(list(_moments(trace))):
        choice = random.Random(f"{seed} {moment} {len(done)}")
        for tree, is_sampled in disk.trees(choice):
            key = hash((tree, done))
            if key not in seen:
                seen.add(key)
                yield CutState(tree, done, moment, is_sampled)


def _moments(trace: Trace) -> Iterator[tuple[_Disk, tuple[str, ...], str]]:
    """Yield the disk, what was reported, and what comes next: before each sync and each mark, and at the end.

    The disk tells what is durable from what is not.
    """
    disk = _Disk(trace.inodes)
    done: tuple[str, ...] = ()
    for operation in trace.operations:
        if isinstance(operation, Sync | Mark):
            yield disk.copied(), done, operation.text
        if isinstance(operation, Mark):
            done = (*done, operation.text)
        else:
            disk.apply(operation)
    yield disk, done, "the end"


class _Disk:
    """What is durable, and what was done since to each file and folder."""

    def __init__(self, inodes: dict[int, Inode]) -> None:
        self._durable = dict(inodes)
        self._names: dict[int, list[Link | Unlink]] = {}
        self._data: dict[int, list[Write | Resize]] = {}

    def copied(self) -> _Disk:
        """Return one that stays as this is now."""
        copy = _Disk(self._durable)
        copy._names = {inode: list(changes) for inode, changes in self._names.items()}
        copy._data = {inode: list(changes) for inode, changes in self._data.items()}
        return copy

    def apply(self, operation: Link | Unlink | Write | Resize | Sync) -> None:
        if isinstance(operation, Sync):
            self._sync(operation.inode)
        elif isinstance(operation, Link | Unlink):
            self._names.setdefault(operation.folder, []).append(operation)
        else:
            self._data.setdefault(operation.inode, []).append(operation)

    def _sync(self, inode: int) -> None:
        for one in (*self._names.pop(inode, ()), *self._data.pop(inode, ())):
            apply(self._durable, one)

    def trees(self, choice: random.Random) -> Iterator[tuple[Tree, bool]]:
        """Yield every tree that a cut may leave now, and whether it is one of a sample."""
        for folders in self._folders(ROOT, {}):
            files = [inode for names in folders.values() for inode in names.values() if inode not in folders]
            contents = {inode: self._contents(inode) for inode in dict.fromkeys(files)}
            count = math.prod(len(one) for one in contents.values())
            if count <= SAMPLED:
                for chosen in itertools.product(*contents.values()):
                    yield _tree(ROOT, folders, dict(zip(contents, chosen, strict=True))), False
                continue
            for _ in range(SAMPLED):
                picked = {inode: choice.choice(one) for inode, one in contents.items()}
                yield _tree(ROOT, folders, picked), True

    def _folders(self, inode: int, so_far: dict[int, dict[str, int]]) -> Iterator[dict[int, dict[str, int]]]:
        """Yield every choice of names for the folders that can be reached from `inode` by that choice."""
        durable = self._durable[inode]
        assert isinstance(durable, dict)
        for names in folder_names(durable, self._names.get(inode, ())):
            inside = [one for one in dict.fromkeys(names.values()) if isinstance(self._durable[one], dict)]
            yield from self._each(inside, {**so_far, inode: names})

    def _each(
        self, inside: list[int], so_far: dict[int, dict[str, int]]
    ) -> Iterator[dict[int, dict[str, int]]]:
        if not inside:
            yield so_far
            return
        for chosen in self._folders(inside[0], so_far):
            yield from self._each(inside[1:], chosen)

    def _contents(self, inode: int) -> list[bytes | Symlink]:
        durable = self._durable[inode]
        if isinstance(durable, Symlink):
            return [durable]
        assert isinstance(durable, bytes)
        return [*file_contents(durable, self._data.get(inode, ()))]


def _tree(inode: int, folders: dict[int, dict[str, int]], files: dict[int, bytes | Symlink]) -> Tree:
    return tuple(
        (name, _tree(one, folders, files) if one in folders else files[one])
        for name, one in sorted(folders[inode].items())
    )


def names_of(tree: Tree) -> tuple[object, ...]:
    """Return the names in a tree, without what is in the files but for whether anything is."""
    return tuple(
        (name, names_of(content) if isinstance(content, tuple) else bool(content)) for name, content in tree
    )


def write_state(tree: Tree, folder: Path) -> None:
    """Build a state in an empty folder."""
    for name, content in tree:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, Symlink):
            path.symlink_to(content.target)
        else:
            path.mkdir()
            write_state(content, path)
