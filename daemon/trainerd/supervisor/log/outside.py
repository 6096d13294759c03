"""Log lines of a program whose log is not open: a start that fails, and what is printed to standard error."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from trainerd.supervisor.log.catalogue import CATALOGUE
from trainerd.supervisor.log.journal_stream import is_journal_stream, prioritised
from trainerd.supervisor.log.logger import render_json, safe_field, timestamp

STANDARD_OUTPUT = 1
STANDARD_ERROR = 2


def emit(name: str, *, descriptor: int = STANDARD_OUTPUT, **fields: Any) -> None:
    """Write one line to a descriptor. If it has no reader, the line is lost."""
    level = CATALOGUE[name].level
    said = {key: safe_field(key, value) for key, value in fields.items() if value}
    line = render_json({"ts": timestamp(), "level": level, "event": name, **said})
    with contextlib.suppress(OSError):
        os.write(descriptor, prioritised(line, level) if is_journal_stream(descriptor) else line)


class PrintedLines(io.TextIOBase):
    """Standard error of a program whose standard error is the journal: what is printed becomes log lines."""

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        self._descriptor = descriptor
        self._kept: list[str] = []

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str, /) -> int:
        self._kept.append(text)
        if text.endswith("\n"):
            self.flush()
        return len(text)

    def flush(self) -> None:
        message, self._kept = "".join(self._kept).strip(), []
        if message:
            emit("supervisor.message", descriptor=self._descriptor, message=message)
