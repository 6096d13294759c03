"""Whether a rank starts with the signals held that ask for a stop.

A program imports torch for seconds before it opens its session, and a signal in that time would end it as a
failure. Where its script imports trainerd, that import takes the held signals over, so none of them is lost.

Invariant: they are held only for a Python interpreter that runs a script with an unconditional import of
trainerd. A shell, a launcher or a program without a session would keep them held, and so would its children.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.regular_file import open_regular
from trainerd.contract.signals import STOP

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

SCRIPT_BYTES_MAX: Final = 256 * 1024
"""Scripts are looked at up to this size, in bytes."""

_ONLY_AST: Final = 0x400  # ast.PyCF_ONLY_AST, without the import of ast
_BECOME_PYTHON: Final = frozenset({"env", "nice", "ionice", "nohup", "stdbuf", "chrt", "taskset", "numactl"})
"""Programs that become the program they are given: no process of theirs is left to hold a signal."""
_OPTIONS_WITH_VALUE: Final = frozenset({"-W", "-X"})
_OTHER_PROGRAMS: Final = ("-m", "-c", "-")


def held_at_start(command: Sequence[str], workdir: str) -> frozenset[signal.Signals]:
    """Return the signals with which a rank is started held."""
    return STOP if takes_over_signals(command, workdir) else frozenset()


def takes_over_signals(command: Sequence[str], workdir: str) -> bool:
    """Return whether the program imports trainerd at the top level of its script; unknown is no."""
    script = _script(command)
    if script is None:
        return False
    try:
        with os.fdopen(open_regular(Path(workdir, script)), "rb") as file:
            source = file.read(SCRIPT_BYTES_MAX + 1)
    except (OSError, ValueError):  # such as a name that no file can have
        return False
    return len(source) <= SCRIPT_BYTES_MAX and _imports_trainerd(source)


def _script(command: Sequence[str]) -> str | None:
    """Return the script that a Python interpreter is given, None if it is another program."""
    words = list(command)
    if words and os.path.basename(words[0]) in _BECOME_PYTHON:  # noqa: PTH119 - a word, perhaps no path
        words.pop(0)
        while words and (words[0].startswith("-") or "=" in words[0] or words[0].isdecimal()):
            words.pop(0)
    if not words or not os.path.basename(words[0]).startswith("python"):  # noqa: PTH119 - likewise
        return None
    options = iter(words[1:])
    for word in options:
        if word.startswith(_OTHER_PROGRAMS[:2]) or word == _OTHER_PROGRAMS[2]:
            return None
        if not word.startswith("-"):
            return word
        if word in _OPTIONS_WITH_VALUE:
            next(options, None)
    return None


def _imports_trainerd(source: bytes) -> bool:
    try:
        tree = compile(source, "script", "exec", _ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for statement in getattr(tree, "body", ()):
        names = [alias.name for alias in getattr(statement, "names", ()) if hasattr(alias, "name")]
        if type(statement).__name__ == "ImportFrom":
            names = [getattr(statement, "module", None) or ""]
        if any(name.split(".")[0] == "trainerd" for name in names):
            return True
    return False
