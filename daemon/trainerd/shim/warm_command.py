"""Whether a command can be taken over by a standby process: an interpreter that runs a script or module.

Pure. What is not known to run the same in a process that is ready has no standby, and is told why.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FLAGS: Final = frozenset("BEIOPRSbqsu")
"""Options without a value that only set `sys.flags`, or what a process that starts does with its output."""

_X_OPTIONS: Final = frozenset(
    {"dev", "utf8", "faulthandler", "int_max_str_digits", "no_debug_ranges", "warn_default_encoding"}
)

_VARIABLES: Final = (
    "PYTHONINSPECT",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONTRACEMALLOC",
    "PYTHONVERBOSE",
    "PYTHONDUMPREFS",
    "PYTHONBREAKPOINT",
    "COVERAGE_PROCESS_START",
)
"""Variables by which the interpreter reports what it does from its first moment on."""


@dataclass(frozen=True)
class WarmCommand:
    """A command, divided.

    Attributes:
        options: Of the interpreter.
        script: File that it runs; None if it runs a module.
        module: Module that it runs; None if it runs a file.
        arguments: Of the script or module.
    """

    options: tuple[str, ...]
    script: str | None
    module: str | None
    arguments: tuple[str, ...]


def divide(command: Sequence[str]) -> WarmCommand | str:
    """Return the parts of a command, or why it can have no standby."""
    program = os.path.basename(command[0])  # noqa: PTH119 - a word, perhaps no path
    if not program.startswith("python"):
        return f"the command runs {program!r}, not a Python interpreter"
    options: list[str] = []
    words = list(command[1:])
    while words:
        word = words.pop(0)
        if word.startswith("-m"):
            module = word[2:] or (words.pop(0) if words else "")
            return (
                WarmCommand(tuple(options), None, module, tuple(words))
                if module
                else "the command has no module"
            )
        if not word.startswith("-"):
            return WarmCommand(tuple(options), word, None, tuple(words))
        options.append(word)
        if word in {"-X", "-W"} and words:
            options.append(words[0])
            word += words.pop(0)
        if word.startswith("-W") or (word.startswith("-X") and word[2:].partition("=")[0] in _X_OPTIONS):
            continue
        if word == "-" or not set(word[1:]) <= _FLAGS:
            return f"the command has the option {word!r}"
    return "the command has no script"


def why_not(command: Sequence[str], environ: Mapping[str, str], *, is_group: bool) -> str | None:
    """Return why a job has no standby; None if it can have one."""
    if is_group:
        return "the job has ranks, and only a job of one process can have one"
    found = divide(command)
    if isinstance(found, str):
        return found
    for name in _VARIABLES:
        if name in environ:
            return f"{name} is set"
    return None
