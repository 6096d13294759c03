"""What is shown of the logs of ranks: the attempts, times and last lines that are wanted, in one form."""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from trainerd.cli.attempt_lines import AttemptLines
from trainerd.cli.human import NOTHING
from trainerd.cli.post_mortem import newest_attempt
from trainerd.cli.rank_logs import lines_of
from trainerd.cli.shown_zone import precise_moment
from trainerd.cli.terminal_bytes import for_terminal
from trainerd.contract.log_times import LogTimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.cli.rank_logs import RankLogs
    from trainerd.contract.paths import RunPaths


@dataclass(frozen=True)
class LogForm:
    """How lines are shown.

    Attributes:
        has_times: Whether each begins with its time.
        since_s: Only those that were printed later, in seconds since the epoch; None for all.
        as_json: Whether each is an object.
    """

    has_times: bool
    since_s: float | None
    as_json: bool

    @property
    def needs_times(self) -> bool:
        return self.has_times or self.since_s is not None


class ShownLines:
    """Writes what ranks printed, of the attempts that are wanted; with `lines` the last ones, at the end."""

    def __init__(
        self,
        run: RunPaths,
        logs: RankLogs,
        shows: Callable[[int], bool] | None,
        form: LogForm,
        *,
        lines: int | None,
        says_endings: bool,
    ) -> None:
        self._run = run
        self._logs = logs
        self._lines = lines
        self._form = form
        self._times: dict[int, LogTimes] = {}
        self._kept: dict[int, deque[bytes]] = {}
        self._parts: dict[int, AttemptLines] = {}
        self._new_part = partial(
            AttemptLines,
            run,
            shows=shows or (lambda _: True),
            newest=newest_attempt(run),
            says_endings=says_endings,
            stamp=self._stamp,
        )

    def put(self, rank: int, data: bytes) -> None:
        part = self._part(rank)
        if not self._form.needs_times:
            self._write(rank, part.take(data))
            return
        if rank not in self._times:
            self._times[rank] = LogTimes(self._run.rank_log(rank), self._run.rank_log_times(rank))
        times = self._times[rank]
        end, since_s = self._logs.begin(rank), self._form.since_s
        pieces = []
        for line in lines_of(data):
            end += len(line)
            shown, own = part.take(line), part.shows_last
            if own:  # what comes before it says how another attempt ended
                noted_s = times.noted(end)
                is_late = since_s is None or noted_s is None or noted_s >= since_s
                pieces += [shown[:-own], self._stamp(times.at(end)) + shown[-own:] if is_late else b""]
            else:
                pieces.append(shown)
        self._write(rank, b"".join(pieces))

    def _stamp(self, wall_s: float | None) -> bytes:
        if not self._form.has_times:
            return b""
        if self._form.as_json:
            return f"{wall_s or ''} ".encode()
        return f"{precise_moment(wall_s) if wall_s is not None else NOTHING} ".encode()

    def put_endings(self) -> None:
        for rank in self._logs.ranks:
            self._write(rank, self._part(rank).rest())

    def finish(self) -> None:
        self._lines = None
        for rank, lines in self._kept.items():
            self._write(rank, b"".join(lines))

    def _part(self, rank: int) -> AttemptLines:
        if rank not in self._parts:
            self._parts[rank] = self._new_part(rank)
        return self._parts[rank]

    def _write(self, rank: int, data: bytes) -> None:
        if self._lines is not None:
            lines = self._kept.setdefault(rank, deque(maxlen=self._lines))
            lines.extend(data.splitlines(keepends=True))
        elif data:
            write_out(_rendered(rank, data, self._form, is_mixed=self._logs.is_mixed))


def _rendered(rank: int, data: bytes, form: LogForm, *, is_mixed: bool) -> bytes:
    if form.as_json:
        records = (_record(rank, line, has_time=form.has_times) for line in data.split(b"\n")[:-1])
        return b"".join(json.dumps(record).encode() + b"\n" for record in records)
    if is_mixed:
        return b"".join(b"[%d] %s" % (rank, line) for line in data.splitlines(keepends=True))
    return data


def _record(rank: int, line: bytes, *, has_time: bool) -> dict[str, object]:
    record: dict[str, object] = {"rank": rank}
    if has_time:
        wall, _, line = line.partition(b" ")
        record["wall_s"] = float(wall) if wall else None
    return {**record, "line": line.decode(errors="replace")}


def write_out(data: bytes) -> None:
    """Print what a log holds; bytes that a terminal would obey are shown as text on one."""
    # What a job prints need not be text: into a pipe, bytes go through as they are.
    click.echo(for_terminal(data) if sys.stdout.isatty() else data, nl=False)
