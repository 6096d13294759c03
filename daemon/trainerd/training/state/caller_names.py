"""Names that the user's code has for objects, found in the frames of the callers, for messages."""

from __future__ import annotations

import linecache
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

_FOREIGN: Final = frozenset({"trainerd", "torch", "tqdm", "_pytest", "pluggy", "runpy"})
"""Packages whose own variables are not the user's."""
_ITEMS_MAX: Final = 64
_PLAIN: Final = (str, bytes, int, float, complex, type(None), type, ModuleType)


@dataclass(frozen=True)
class Known:
    """An object as the user's code refers to it.

    Attributes:
        expression: How it is written there, such as ``self.scheduler``.
        value: The object.
        file: File of the code.
        line: Line at which that code is.
        prefix: What the expression begins with that is not written in that file: the name of a module.
    """

    expression: str
    value: Any
    file: str
    line: int
    prefix: str = ""

    @cached_property
    def where(self) -> str:
        """File and line of the assignment, if that can be found above the line; else of that line."""
        name = re.escape(self.expression.removeprefix(self.prefix))
        pattern = re.compile(rf"^\s*(?:[\w.\[\]\"', ]+,\s*)?{name}\s*(?:,[\w.\[\]\"', ]+)?(?::[^=]+)?=(?!=)")
        lines = linecache.getlines(self.file)
        above = range(min(self.line, len(lines)), 0, -1)
        number = next((each for each in above if pattern.match(lines[each - 1])), self.line)
        return f"{_short(self.file)}:{number}"

    @property
    def word(self) -> str:
        """An identifier for the object, of the last part of its expression."""
        last = self.expression if "[" in self.expression else self.expression.rpartition(".")[2]
        return re.sub(r"\W+", "_", last.removeprefix("self.")).strip("_")


class CallerNames:
    """Everything that the user's code has a name for at one moment: variables, their attributes and items.

    Args:
        frame: Innermost frame to look at; those of libraries are passed over.

    Attributes:
        place: File and line that the innermost frame of the user's code is at.
        session: What the code calls the session.
        unseen: Expressions for objects that raise an error when they are looked into.
    """

    def __init__(self, frame: FrameType | None = None) -> None:
        self._known: dict[int, Known] = {}
        self.place = ""
        self.session = "session"
        self.unseen: list[str] = []
        frames = list(user_frames(frame or sys._getframe(1)))  # noqa: SLF001 - the documented way to it
        if frames:
            self.place = place_of_frame(frames[0])
        with_session = [each for each in frames if any(map(is_session, each.f_locals.values()))]
        # Where the session was opened, objects are tracked: the names there are the ones to say.
        for each in dict.fromkeys((*reversed(with_session), *frames)):
            for names in (each.f_locals, each.f_globals):
                self._take(names, each.f_code.co_filename, each.f_lineno)

    def add_module(self, module: ModuleType) -> None:
        """Take in what a module of the program has names for, as ``module.name``."""
        file, prefix = str(module.__file__), f"{module.__name__}."
        names = {f"{prefix}{name}": value for name, value in list(vars(module).items())}
        self._take(names, file, len(linecache.getlines(file)), prefix=prefix)

    def of(self, value: object) -> Known | None:
        """Return how the user's code refers to an object, None if no name was found."""
        return self._known.get(id(value))

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._known.values()))

    def _take(self, names: dict[str, Any], file: str, line: int, *, prefix: str = "") -> None:
        level = [
            (name, value)
            for name, value in list(names.items())
            if not name.removeprefix(prefix).startswith("__")
        ]
        for depth in range(3):
            below: list[tuple[str, Any]] = []
            for expression, value in level:
                if id(value) in self._known:
                    continue
                if not _can_be_asked(value):
                    self.unseen.append(expression)
                    continue
                if isinstance(value, _PLAIN):
                    continue
                self._known[id(value)] = Known(expression, value, file, line, prefix)
                if is_session(value):
                    self.session = expression
                elif depth < 2:  # attributes of attributes of variables, and no further
                    below += list(_parts(expression, value))
            level = below


def _can_be_asked(value: Any) -> bool:
    """Tell whether an object can be looked into: proxies and lazy objects may raise anything then."""
    try:
        getattr(value, "__dict__", None)
        if isinstance(value, dict) and type(value) is not dict:
            next(iter(value.values()), None)
    except Exception:  # noqa: BLE001 - see above
        return False
    return True


def is_session(value: Any) -> bool:
    """Tell whether an object is a session."""
    return type(value).__name__ == "Session" and _package(type(value).__module__) == "trainerd"


def user_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of the user's own code from `frame` outwards."""
    while frame is not None:
        if _package(str(frame.f_globals.get("__name__", ""))) not in _FOREIGN:
            yield frame
        frame = frame.f_back


def place_of_frame(frame: FrameType) -> str:
    """Return the file and line that a frame is at."""
    return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}"


def place_of_code(code: CodeType) -> str:
    """Return the file and line at which a function begins."""
    return f"{_short(code.co_filename)}:{code.co_firstlineno}"


def _parts(expression: str, value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) in {list, tuple}:
        yield from ((f"{expression}[{index}]", item) for index, item in enumerate(value[:_ITEMS_MAX]))
    elif type(value) is dict:
        keys = [key for key in list(value)[:_ITEMS_MAX] if isinstance(key, str)]
        yield from ((f'{expression}["{key}"]', value[key]) for key in keys)
    else:
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            for name, item in list(attributes.items())[:_ITEMS_MAX]:
                if isinstance(name, str) and name.isidentifier() and not isinstance(item, _PLAIN):
                    yield f"{expression}.{name}", item
            children = attributes.get("_modules")
            if isinstance(children, dict):
                yield from ((f"{expression}.{name}", item) for name, item in children.items())


def _short(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


def _package(module: str) -> str:
    return module.partition(".")[0]
