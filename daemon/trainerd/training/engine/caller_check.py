"""Static analysis of the code that trains: the script that opened the session, and files with its loops.

The script is analysed once at the start of the session. Another file of the program is analysed when code in
it opens a loop; what is found there counts if it is about that loop, and unless the session keeps it.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.analysis import carried, untracked
from trainerd.analysis.silencing import silenced_lines
from trainerd.analysis.source_text import decoded
from trainerd.analysis.two_loops import RULE as TWO_LOOPS
from trainerd.contract import environment
from trainerd.contract.verdict import Reason
from trainerd.training.data.found_generators import is_installed, is_of_user
from trainerd.training.engine.check_cache import findings_of
from trainerd.training.state.caller_names import is_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
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
    """What the analysis finds in the code that trains. A finding counts once a loop it is about is opened.

    A script may hold several training functions, and branches that this run does not take.

    Args:
        suspicions: The suspicions of this attempt.
        say: Tells the user.
        is_kept: Tells whether a checkpoint holds an object: a file may track what another file changes.
    """

    def __init__(
        self,
        suspicions: Suspicions,
        say: Callable[[str], None],
        is_kept: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self._suspicions = suspicions
        self._say = say
        self._is_kept = is_kept
        self._path = ""
        self._waiting: dict[str, list[ScriptFinding]] = {}
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Analyse the script, and tell the user what is found, once a process.

        ``TRAINERD_CHECK=off`` leaves it out. Whatever goes wrong in it counts as nothing found: it must not
        keep a script from training.
        """
        if os.environ.get(environment.CHECK) == "off":
            return
        path = _caller()
        findings = _findings_in(path) if path is not None else None
        if path is None or findings is None:
            return
        self._path = path
        self._seen.add(path)
        self._waiting[path] = [each for each in findings if each.rule not in _RAISED]
        self._count(path, lambda finding: not finding.loops)
        key = _key(path)
        if findings and key not in _told:
            _told.add(key)
            for line in warnings_of(path, findings):
                self._say(line)

    def loop_opened(self) -> None:
        """The script opens a loop: count what was found in it."""
        if not self._path:
            return
        for frame in _callers():
            if frame.f_code.co_filename not in self._seen:
                self._look_at(frame)
        for path, waiting in self._waiting.items():
            if waiting:
                frames = _frames_in(path)
                lines = [frame.f_lineno for frame in frames]
                self._count(path, lambda finding, lines=lines: finding.is_about(lines), frames)  # type: ignore[misc]

    def _look_at(self, frame: FrameType) -> None:
        """Analyse another file of the program, for the loops in it."""
        file, module = frame.f_code.co_filename, frame.f_globals.get("__name__")
        self._seen.add(file)
        is_script = Path(file).name == Path(self._path).name  # by another path to it
        if is_script or is_installed(file) or not is_of_user(module):
            return
        findings = _findings_in(file, _session_names(frame)) or ()
        self._waiting[file] = [each for each in findings if each.loops and each.rule not in _RAISED]

    def _count(
        self, path: str, is_met: Callable[[ScriptFinding], bool], frames: Iterable[FrameType] = ()
    ) -> None:
        is_told = path == self._path
        for finding in filter(is_met, self._waiting[path]):
            if not is_told and any(map(self._is_kept, _meant_by(finding.name, frames))):
                continue
            name = finding.name if finding.rule in _NOT_KEPT else ""
            self._suspicions.add(_reason(path, finding), is_said=is_told, of=name)
        self._waiting[path] = [each for each in self._waiting[path] if not is_met(each)]


def _findings_in(path: str, sessions: Collection[str] = ()) -> tuple[ScriptFinding, ...] | None:
    """Return what the analysis finds in a file, None if it cannot be analysed."""
    try:
        key = _key(path)
        if key not in _known:
            _known[key] = findings_of(_source(path, key), sessions=sessions)
        return _known[key]
    except Exception:  # noqa: BLE001 - it must not keep a script from training
        return None


def _session_names(frame: FrameType) -> list[str]:
    """Return what code calls its session: a name may not tell. Variables, and attributes of self."""
    variables = dict(frame.f_locals)
    own = {f"self.{name}": each for name, each in getattr(variables.get("self"), "__dict__", {}).items()}
    return sorted(name for name, each in (variables | own).items() if is_session(each))


def _meant_by(name: str, frames: Iterable[FrameType]) -> Iterator[Any]:
    """Yield the objects that a chain of names means in frames, and those on the way to them."""
    first, *rest = name.split(".")
    for frame in frames:
        value = frame.f_locals.get(first, frame.f_globals.get(first))
        for attribute in rest:
            yield value
            value = getattr(value, "__dict__", {}).get(attribute)
        yield value


def is_silenced_at(place: str) -> bool:
    """Tell whether a comment silences what is found at a place, as `Reason.where` has it: file and line."""
    file, _, line = place.partition(" ")[0].rpartition(":")
    return line.isdigit() and int(line) in silenced_lines("".join(linecache.getlines(file)))


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


def _frames_in(path: str) -> list[FrameType]:
    """Return the frames that run code of a file.

    The main module may be known by a relative and by an absolute path: the name of the file tells it.
    """
    name = Path(path).name
    return [frame for frame in _callers() if Path(frame.f_code.co_filename).name == name]


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
