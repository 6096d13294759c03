"""The protocol with one thing left out or done too early: each such mutant must lose something in some state.

A check that never fails proves nothing. A mutant that loses nothing is either a hole in the check or a sync
that is not needed; the second kind is listed here with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chaos.power_cut.operations import Link, Mark, Operation, Symlink, Sync, Trace, Unlink

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Mutant", "explanation", "mutants"]

_NOT_NEEDED: Final[dict[tuple[str, str], str]] = {
    ("prune", r"fsync checkpoints \(1\)"): (
        "two go at once: the sync after the second rename, before anything is removed, serves both"
    ),
    ("prune", r"fsync checkpoints \(2\) after"): (
        "what is removed first is under the name that the first sync has made durable"
    ),
    ("new-journal", r"fdatasync journal.sqlite3-journal \(1\)"): (
        "SQLite: the rollback journal of an empty database holds no pages that their number must wait for"
    ),
    ("(new-)?journal", r"fdatasync journal.sqlite3-wal \(1\)"): (
        "SQLite: the head of a new log is synced once more by the first commit, together with its frames"
    ),
    ("new-journal", r"fdatasync journal.sqlite3-wal \(2\)"): (
        "the tables: nothing was reported yet, and the sync of the first decision takes them along"
    ),
    ("new-journal", r"fdatasync \. \(2\)|fsync \. \(1\)"): (
        "SQLite's sync of the folder and ours follow one another; without any it is caught"
    ),
    ("journal", r"(fdatasync|fsync) \. \(1\)"): (
        "SQLite's sync of the folder and ours follow one another; without any it is caught"
    ),
    ("new-journal", r"fdatasync journal.sqlite3-wal \(5\)"): (
        "SQLite syncs the log once more before it carries it into the database; each commit has done so"
    ),
    ("journal", r"fdatasync journal.sqlite3-wal \(4\)"): (
        "SQLite syncs the log once more before it carries it into the database; each commit has done so"
    ),
}
_SERIAL: Final = re.compile(r"\.staging-(step-\d+)-\d+-\d+|\.pruned-(step-\d+)-\d+-\d+|\.tmp-\d+-\d+")


@dataclass(frozen=True)
class Mutant:
    """A protocol that is wrong by one thing."""

    name: str
    trace: Trace


def mutants(trace: Trace) -> Iterator[Mutant]:
    """Yield every mutant: each sync left out, and each sync put after the next rename, removal or report."""
    links = frozenset(inode for inode, content in trace.inodes.items() if isinstance(content, Symlink))
    for place, operation in enumerate(trace.operations):
        if not isinstance(operation, Sync):
            continue
        before, after = trace.operations[:place], trace.operations[place + 1 :]
        name = _plain(f"{operation.text} ({_nth(trace.operations, place)})")
        yield Mutant(f"without {name}", Trace(trace.inodes, (*before, *after)))
        passed = _passed(after, links)
        if passed:
            late = (*before, *after[:passed], operation, *after[passed:])
            yield Mutant(f"{name} after {_plain(after[passed - 1].text)}", Trace(trace.inodes, late))
    yield from _without_any_sync_of_one(trace)


def _without_any_sync_of_one(trace: Trace) -> Iterator[Mutant]:
    """Yield the mutants that never sync one file or folder, for those that are synced more than once."""
    times = Counter(one.inode for one in trace.operations if isinstance(one, Sync))
    for inode in (inode for inode, count in times.items() if count > 1):
        left = tuple(one for one in trace.operations if not (isinstance(one, Sync) and one.inode == inode))
        text = next(one.text for one in trace.operations if isinstance(one, Sync) and one.inode == inode)
        yield Mutant(f"never {_plain(text)}", Trace(trace.inodes, left))


def _passed(after: tuple[Operation, ...], links: frozenset[int]) -> int:
    """Return how many operations a delayed sync lets pass.

    They are those up to the next rename, removal or report that counts.

    Links for people do not count, nor does SQLite's shared memory: nothing is ever read from them.
    """
    for place, one in enumerate(after):
        is_rename = isinstance(one, Link) and one.text.startswith("rename") and one.inode not in links
        is_removal = isinstance(one, Unlink) and not one.text.endswith("-shm") and "/.last" not in one.text
        if is_rename or is_removal or isinstance(one, Mark):
            has_other_half = is_rename and place + 1 < len(after) and after[place + 1].text == one.text
            return place + (2 if has_other_half else 1)
    return 0


def _nth(operations: tuple[Operation, ...], place: int) -> int:
    text = operations[place].text
    return sum(isinstance(one, Sync) and one.text == text for one in operations[: place + 1])


def _plain(text: str) -> str:
    """Leave out the numbers that differ from one recording to the next."""
    return _SERIAL.sub(
        lambda found: (
            found[0][: found[0].index("-")] + (f"-{found[1] or found[2]}" if found[1] or found[2] else "")
        ),
        text,
    )


def explanation(scenario: str, name: str) -> str | None:
    """Return why a mutant that loses nothing is right, None if no reason is known."""
    for (of, pattern), why in _NOT_NEEDED.items():
        if re.fullmatch(of, scenario) and re.search(pattern, name):
            return why
    return None
