"""Static analysis of the script that opened the session, once at its start."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.analysis import carried, untracked
from trainerd.analysis.source_text import decoded
from trainerd.analysis.two_loops import RULE as TWO_LOOPS
from trainerd.contract import environment
from trainerd.contract.verdict import Reason
from trainerd.training.engine.check_cache import findings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from trainerd.analysis.script_finding import ScriptFinding
    from trainerd.training.engine.suspicions import Suspicions

_OURS: Final = str(Path(__file__).parents[2]) + os.sep
_LINES_MAX: Final = 10
"""Findings that are told at the start of a session; `trainerd check` shows all."""

_RAISED: Final = frozenset({TWO_LOOPS})
"""What the session raises as an error where it happens: a run that goes on has not come to it."""

_NOT_KEPT: Final = frozenset({carried.RULE, untracked.RULE})
"""What the steps show as well: it is one reason."""

_SIZE_BYTES_MAX: Final = 1 << 18
"""A longer script would hold up the start of the session."""

_known: dict[tuple[str, int, int], tuple[ScriptFinding, ...]] = {}
"""Findings by path, modification time and size."""

_told: set[tuple[str, int, int]] = set()


class CallerCheck:
    """What the analysis finds in the calling script. A finding counts once a loop that it is about is opened.

    A script may hold several training functions, and branches that this run does not take.

    Args:
        suspicions: The suspicions of this attempt.
        say: Tells the user.
    """

    def __init__(self, suspicions: Suspicions, say: Callable[[str], None]) -> None:
        self._suspicions = suspicions
        self._say = say
        self._path = ""
        self._waiting: list[ScriptFinding] = []

    def begin(self) -> None:
        """Analyse the script, and tell the user what is found, once a process.

        ``TRAINERD_CHECK=off`` leaves it out. Whatever goes wrong in it counts as nothing found: it must not
        keep a script from training.
        """
        if os.environ.get(environment.CHECK) == "off":
            return
        try:
            path = _caller()
            if path is None:
                return
            key = _key(path)
            if key not in _known:
                _known[key] = findings_of(_source(path, key))
            findings = _known[key]
        except Exception:  # noqa: BLE001 - see above
            return
        self._path = path
        self._waiting = [each for each in findings if each.rule not in _RAISED]
        self._count(lambda finding: not finding.loops)
        if findings and key not in _told:
            _told.add(key)
            for line in warnings_of(path, findings):
                self._say(line)

    def loop_opened(self) -> None:
        """The script opens a loop: count what was found in it."""
        if self._waiting:
            lines = _lines_in(self._path)
            self._count(lambda finding: finding.is_about(lines))

    def _count(self, is_met: Callable[[ScriptFinding], bool]) -> None:
        for finding in filter(is_met, self._waiting):
            name = finding.name if finding.rule in _NOT_KEPT else ""
            self._suspicions.add(_reason(self._path, finding), is_said=True, of=name)
        self._waiting = [each for each in self._waiting if not is_met(each)]


def warnings_of(path: str, findings: tuple[ScriptFinding, ...]) -> list[str]:
    """Return the lines that tell of findings."""
    lines = [
        f"trainerd: warning: {Path(path).name}:{each.line}: {each.why}; instead: {each.instead}"
        for each in findings[:_LINES_MAX]
    ]
    if len(findings) > _LINES_MAX:
        lines.append(f"trainerd: warning: and {len(findings) - _LINES_MAX} more: trainerd check {path}")
    return lines


def _reason(path: str, finding: ScriptFinding) -> Reason:
    return Reason(finding.rule, f"{Path(path).name}:{finding.line}", finding.why, finding.instead)


def _caller() -> str | None:
    """Return the file of the code that entered the session, None if there is none."""
    return next((frame.f_code.co_filename for frame in _callers()), None)


def _lines_in(path: str) -> list[int]:
    """Return the lines at which a file is being run.

    The main module may be known by a relative and by an absolute path: the name of the file tells it.
    """
    name = Path(path).name
    return [frame.f_lineno for frame in _callers() if Path(frame.f_code.co_filename).name == name]


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the public way there, inspect, reads all files on it
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) and name != contextlib.__file__:
            yield frame
        frame = frame.f_back


def _key(path: str) -> tuple[str, int, int]:
    """Return what tells one version of a file from another. Cells of a notebook have no file."""
    with contextlib.suppress(OSError, ValueError):
        status = Path(path).stat()
        return path, status.st_mtime_ns, status.st_size
    return path, 0, 0


def _source(path: str, key: tuple[str, int, int]) -> str:
    """Return the text of a script, empty if it cannot be had or is too long."""
    if key[2] > _SIZE_BYTES_MAX:
        return ""
    if key[2]:
        return decoded(Path(path).read_bytes())
    return "".join(linecache.getlines(path))
