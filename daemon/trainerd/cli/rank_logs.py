"""The log files of a run's ranks, read as one: found when they appear, mixed line by line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trainerd.cli.log_tail import FollowedFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.contract.paths import RunPaths

_RANK_LOG: Final = re.compile(r"rank-(\d+)\.log")


def lines_of(data: bytes) -> list[bytes]:
    """Return whole lines with their newlines; a carriage return, as of a progress bar, ends none."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


class RankLogs:
    """What the ranks of a run print.

    Args:
        run: Whose.
        rank: The only one that is wanted; None wants all.
        lines: How many lines of each to begin with, None for all.
        whole_lines: Whether a line is kept back until it is complete; it always is where ranks are mixed.

    Raises:
        OSError: The folder or a log cannot be read.
    """

    def __init__(
        self, run: RunPaths, *, rank: int | None = None, lines: int | None = None, whole_lines: bool = False
    ) -> None:
        self._folder = run.rank_log(0).parent
        self._rank = rank
        self._lines = lines
        self._whole_lines = whole_lines
        self._files: dict[int, FollowedFile] = {}
        self._partial: dict[int, bytes] = {}
        self._begins: dict[int, int] = {}
        self._found: set[int] = set()
        self._look()
        # What appears from now on is new from its first line.
        self._lines = None

    @property
    def is_empty(self) -> bool:
        """Whether no rank has a log yet."""
        return not self._files

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that are wanted and have a log."""
        return tuple(self._files)

    @property
    def found(self) -> frozenset[int]:
        """The ranks that have a log, also those that are not wanted."""
        return frozenset(self._found)

    @property
    def is_mixed(self) -> bool:
        """Whether a line must say whose it is."""
        return len(self._files) > 1

    def begin(self, rank: int) -> int:
        """Return where in the log of a rank what was yielded of it last begins."""
        return self._begins.get(rank, 0)

    def read_new(self) -> Iterator[tuple[int, bytes]]:
        """Yield what each rank has added since the last call, a chunk each at most."""
        self._look()
        for rank, file in self._files.items():
            before = self._partial.pop(rank, b"")
            data = before + file.read_new()
            self._begins[rank] = max(file.begin - len(before), 0)
            if self.is_mixed or self._whole_lines:
                head, newline, self._partial[rank] = data.rpartition(b"\n")
                data = head + newline
            if data:
                yield rank, data

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """Yield the last lines of those ranks that have not ended theirs."""
        for rank, data in self._partial.items():
            if data:
                self._begins[rank] = max(self._files[rank].end - len(data), 0)
                yield rank, data + b"\n"
        self._partial.clear()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _look(self) -> None:
        try:
            paths = sorted(self._folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for path in paths:
            match = _RANK_LOG.fullmatch(path.name)
            rank = int(match[1]) if match else None
            if rank is None:
                continue
            self._found.add(rank)
            if rank not in self._files and self._rank in {None, rank}:
                self._files[rank] = FollowedFile(path, lines=self._lines)
