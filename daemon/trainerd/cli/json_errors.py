"""Errors of the verbs that a service runs, as log lines: what systemd's journal gets of them is JSON.

`trainerd run` writes its log to standard output, one JSON object a line, unless that is a terminal. A start
that fails is such a line as well.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

    from trainerd.errors import TrainerdError

_OF_A_SERVICE: Final = frozenset({"run", "reload"})


def prepare_errors(arguments: list[str]) -> None:
    """Have what this program prints to the journal be log lines, if it is one that a service runs."""
    verb = arguments[0] if arguments else ""
    if verb not in _OF_A_SERVICE or "--check" in arguments:
        return
    if "JOURNAL_STREAM" in os.environ:
        from trainerd.supervisor.log.journal_stream import is_journal_stream

        if is_journal_stream(2):
            from trainerd.supervisor.log.outside import PrintedLines

            sys.stderr = PrintedLines()
    if verb == "run" and not _is_terminal():
        sys.excepthook = _say_failure


def is_said_as_line(verb: str | None, error: TrainerdError) -> bool:
    """Log an error as a line where that verb logs lines; return whether that is all that is to be said."""
    if verb not in _OF_A_SERVICE or "--check" in sys.argv:
        return False
    from trainerd.supervisor.log.outside import PrintedLines, emit

    is_journal = isinstance(sys.stderr, PrintedLines)
    if verb == "run" and not _is_terminal():
        emit("supervisor.failed", reason=error.message, hint=error.hint)
        return is_journal
    if is_journal:
        name = "supervisor.failed" if verb == "run" else "supervisor.reload-failed"
        emit(name, descriptor=2, reason=error.message, hint=error.hint)
    return is_journal


def _is_terminal() -> bool:
    try:
        return os.isatty(1)
    except OSError:
        return False


def _say_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from trainerd.supervisor.log.outside import PrintedLines, emit

    text = "".join(traceback.format_exception(kind, error, trace))
    emit("supervisor.failed", reason=f"{kind.__name__}: {error}", exception=text)
    if not isinstance(sys.stderr, PrintedLines):
        sys.__excepthook__(kind, error, trace)
