"""What one file, or one folder, may hold after a cut: every mix of what was durable and what was not.

A file's bytes reach the disk in sectors of 512 bytes, each at any moment after it was written, in any order;
its size is metadata and goes its own way: a size without its data reads as zeros, data without its size is
not seen. A folder's names each come and go by themselves, so a rename may be half done.
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import TYPE_CHECKING, Final

from chaos.power_cut.operations import Link, Resize, Unlink, Write, with_bytes, with_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FINEST_SECTORS", "file_contents", "folder_names"]

SECTOR_BYTES: Final = 512

FINEST_SECTORS: Final = 8
"""Up to so many unsynced sectors of a file, every subset of them is tried, with every size. Beyond, whole
writes are present or missing in every combination, and each is also torn by itself."""

_MOST_RUNS: Final = 6
_MOST_FOLDER_CHANGES: Final = 12


def folder_names(names: dict[str, int], pending: Sequence[Link | Unlink]) -> list[dict[str, int]]:
    """Return every set of names that a folder may have.

    Each change happened or did not, in order for each name.
    """
    found: dict[tuple[tuple[str, int], ...], dict[str, int]] = {tuple(sorted(names.items())): names}
    by_name: dict[str, list[Link | Unlink]] = {}
    for one in pending:
        by_name.setdefault(one.name, []).append(one)
    if sum(len(changes) for changes in by_name.values()) > _MOST_FOLDER_CHANGES:
        return _fewer_names(names, pending)
    for changes in itertools.product(*([None, *changes] for changes in by_name.values())):
        result = names
        for change in changes:
            result = with_names(result, change) if change is not None else result
        found[tuple(sorted(result.items()))] = result
    return list(found.values())


def _fewer_names(names: dict[str, int], pending: Sequence[Link | Unlink]) -> list[dict[str, int]]:
    """Return the sets to try where the subsets are too many.

    These are every prefix, every prefix with one change missing, and every single change.
    """
    kept: list[Sequence[Link | Unlink]] = []
    for end in range(len(pending) + 1):
        kept.append(pending[:end])
        kept += [[*pending[:without], *pending[without + 1 : end]] for without in range(end)]
        kept.append(pending[end : end + 1])
    found = {}
    for changes in kept:
        result = names
        for change in changes:
            result = with_names(result, change)
        found[tuple(sorted(result.items()))] = result
    return list(found.values())


def file_contents(content: bytes, pending: Sequence[Write | Resize]) -> list[bytes]:
    """Return everything that a file may hold."""
    if not pending:
        return [content]
    history = [content]
    for one in pending:
        history.append(with_bytes(history[-1], one))
    sectors = _sector_versions(history)
    if len(sectors) <= FINEST_SECTORS:
        return list(dict.fromkeys(_every_mix(history, sectors)))
    return list(dict.fromkeys(_coarser_mixes(history, pending)))


def _sector_versions(history: list[bytes]) -> dict[int, list[bytes]]:
    """Return what each sector that changed held, in order; sectors that never changed are left out."""
    longest = max(len(one) for one in history)
    versions = {}
    for start in range(0, longest, SECTOR_BYTES):
        seen = [one[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0") for one in history]
        different = list(dict.fromkeys(seen))
        if len(different) > 1:
            versions[start] = different
    return versions


def _sizes(history: list[bytes]) -> list[int]:
    """Return every size that the file may have: those it had, and sector borders on the way up."""
    sizes = {len(one) for one in history}
    for before, after in itertools.pairwise(history):
        first = len(before) - len(before) % SECTOR_BYTES + SECTOR_BYTES
        sizes |= set(range(first, len(after), SECTOR_BYTES))
    return sorted(sizes)


def _every_mix(history: list[bytes], sectors: dict[int, list[bytes]]) -> Iterator[bytes]:
    base = max(history, key=len)
    for size in _sizes(history):
        below = {start: versions for start, versions in sectors.items() if start < size}
        for chosen in itertools.product(*below.values()):
            mixed = bytearray(base[:size].ljust(size, b"\0"))
            for start, sector in zip(below, chosen, strict=True):
                mixed[start : start + SECTOR_BYTES] = sector[: size - start]
            yield bytes(mixed)


def _coarser_mixes(history: list[bytes], pending: Sequence[Write | Resize]) -> Iterator[bytes]:
    runs = _runs(pending)
    size = len(history[-1])
    for chosen in itertools.product([False, True], repeat=len(runs)):
        mixed = _with(history[0], [run for run, is_there in zip(runs, chosen, strict=True) if is_there])
        yield mixed
        yield mixed[:size].ljust(size, b"\0")
    for place, run in enumerate(runs):
        for torn in _torn(run):
            yield _with(history[0], [torn])
            yield _with(history[0], [*runs[:place], torn])
            yield _with(history[0], [*runs[:place], torn, *runs[place + 1 :]])


def _runs(pending: Sequence[Write | Resize]) -> list[list[Write | Resize]]:
    """Group writes that follow one another in the file, and then neighbours, until the groups are few."""
    runs: list[list[Write | Resize]] = []
    for one in pending:
        last = runs[-1][-1] if runs else None
        follows = (
            isinstance(one, Write) and isinstance(last, Write) and one.offset == last.offset + len(last.data)
        )
        # A frame of a write-ahead log is its header and its page.
        if follows and len(runs[-1]) < 2:
            runs[-1].append(one)
        else:
            runs.append([one])
    while len(runs) > _MOST_RUNS:
        runs = [
            functools.reduce(operator.iadd, runs[place : place + 2], []) for place in range(0, len(runs), 2)
        ]
    return runs


def _torn(run: list[Write | Resize]) -> Iterator[list[Write | Resize]]:
    """Tear what a run wrote: it ends early, begins late, has one sector only, or lacks one."""
    sectors = [piece for one in run if isinstance(one, Write) for piece in _sectors_of(one)]
    for place in range(len(sectors)):
        yield [*sectors[:place]]
        yield [*sectors[place:]]
        yield [sectors[place]]
        yield [*sectors[:place], *sectors[place + 1 :]]


def _sectors_of(write: Write) -> Iterator[Write]:
    start, end = write.offset, write.offset + len(write.data)
    while start < end:
        following = min(end, start - start % SECTOR_BYTES + SECTOR_BYTES)
        yield Write(
            write.inode, start, write.data[start - write.offset : following - write.offset], write.text
        )
        start = following


def _with(content: bytes, runs: Sequence[Sequence[Write | Resize]]) -> bytes:
    for run in runs:
        for one in run:
            content = with_bytes(content, one)
    return content
