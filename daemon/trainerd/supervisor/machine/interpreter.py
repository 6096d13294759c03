"""Which Python ran a command, and where another is named: for programs that cannot run as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Origin = Literal["supervisor", "field", "command"]
"""Where an interpreter comes from: it is the supervisor's own, or the spec names it, here or there."""

_NO_MODULE: Final = re.compile(
    r"\S*python[\d.]*: ((?:No module named|Error while finding module specification for) .+)"
)
_IMPORT: Final = re.compile(
    r"(?:\w+\.)*(?:ImportError|ModuleNotFoundError)\b|No module named|Error while finding"
)
_MODULE: Final = re.compile(r"[Nn]o module named '?([\w.]+)")


@dataclass(frozen=True)
class Interpreter:
    """What ran a command.

    Attributes:
        path: Of the program.
        origin: What chose it.
    """

    path: str
    origin: Origin

    def advice(self, message: str) -> str:
        """Return which interpreter it was, and the field that names another, for a program's last message."""
        if not _IMPORT.match(message):
            return f"it ran with {self.path}"
        module = _MODULE.search(message)
        wanted = f"one that has {module[1]}" if module is not None else "the one of its environment"
        if self.origin == "supervisor":
            return f"it ran with {self.path}, the supervisor's own: name {wanted} in the field python:"
        if self.origin == "field":
            return f"it ran with {self.path}, as the field python: says: name {wanted} there"
        return (
            f"it ran with {self.path}, as its command says: name {wanted}, "
            "or begin the command with the word python and fill in the field python:"
        )


def without_module(line: str) -> str | None:
    """Return what an interpreter says that cannot find the module of ``-m``; None for other lines."""
    found = _NO_MODULE.fullmatch(line)
    return found[1] if found is not None else None
