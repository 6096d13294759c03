"""The supervisor's own log, in a form for people, and narrowed down to one job."""

from __future__ import annotations

import json
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from trainerd.cli.log_tail import FollowedFile
from trainerd.cli.shown_zone import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_LEVEL_WIDTH: Final = 7
_EVENT_WIDTH: Final = 24


class DaemonLog:
    """The lines of the supervisor's log.

    Args:
        path: The log.
        job: Only what is about this job; None is everything.
        lines: How many of the lines that are there now to begin with, None for all.
    """

    def __init__(self, path: Path, *, job: str | None = None, lines: int | None = None) -> None:
        self._job = job
        self._lines = lines
        self._file = FollowedFile(path, lines=None if job is not None else lines)
        self._partial = b""

    def read_new(self) -> Iterable[bytes]:
        """Return the lines that were added since the last call, with their newlines.

        The first call of a log that is narrowed down reads all of it, to find the last lines that match.
        """
        if self._job is None or self._lines is None:
            return self._wanted(self._file.read_new())
        newest: deque[bytes] = deque(maxlen=self._lines)
        while data := self._file.read_new():
            newest.extend(self._wanted(data))
        self._lines = None
        return newest

    def close(self) -> None:
        self._file.close()

    def _wanted(self, data: bytes) -> Iterator[bytes]:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            if self._job is None or _parsed(line).get("job") == self._job:
                yield line + b"\n"


def for_people(line: bytes) -> bytes:
    """Return a line of the log as people read it; one that is no JSON object as it is."""
    record = _parsed(line)
    if not record:
        return line
    when = _time_of_day(str(record.pop("ts", "")))
    level, event = record.pop("level", ""), record.pop("event", "")
    more = record.pop("exception", None)
    rest = " ".join(f"{key}={_value(value)}" for key, value in record.items() if value is not None)
    text = f"{when} {level:<{_LEVEL_WIDTH}} {event:<{_EVENT_WIDTH}} {rest}".rstrip()
    return (f"{text}\n{more}\n" if more else f"{text}\n").encode(errors="replace")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if isinstance(value, str) and " " in text else text


def _time_of_day(stamp: str) -> str:
    try:
        return moment(datetime.fromisoformat(stamp).timestamp())
    except ValueError:
        return stamp
