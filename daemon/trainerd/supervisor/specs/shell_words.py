"""Finds what only a shell would understand in a command that is started without one: pure."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SHELL_WORDS: Final = frozenset(
    {".", "alias", "cd", "eval", "exec", "export", "for", "if", "set", "source", "ulimit", "unset", "while"}
)
"""Words that a shell understands and that are no programs, or that do nothing as one."""

OPERATORS: Final = frozenset({"&&", "||", "|", "|&", ";", "&", "<", ">", ">>", "&>", ">&"})
"""What stands between commands and files in a shell."""
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def shell_problem(words: Sequence[str], text: str | None = None) -> str | None:
    """Return what only a shell would understand and what to write instead, None if there is nothing.

    Args:
        words: The command.
        text: What it was split from; None if it was written as words, of which an operator may be meant.
    """
    operator = _operator(text) if text is not None else next((word for word in words if word == "&&"), None)
    written = text if text is not None else shlex.join(words).replace("'&&'", "&&")
    as_shell = f"write it as [bash, -c, {written!r}]"
    if words[0] == "cd":
        return (
            "'cd' is for a shell, and a command is started without one: "
            f"name the folder in workdir, or {as_shell}"
        )
    if words[0] in {"source", "."}:
        return (
            f"{words[0]!r} is for a shell, and a command is started without one: name the interpreter of the "
            f"environment in python, as in .venv/bin/python, or {as_shell}"
        )
    if words[0] in SHELL_WORDS:
        return f"{words[0]!r} is for a shell, and a command is started without one: {as_shell}"
    if _ASSIGNMENT.fullmatch(words[0]):
        return f"{words[0]!r} sets a variable, which only a shell would: write it under env, or {as_shell}"
    if operator is not None:
        return f"{operator!r} is for a shell, and a command is started without one: {as_shell}"
    return None


def _operator(text: str) -> str | None:
    """Return the first operator that stands outside of quotes, None if there is none."""
    reader = shlex.shlex(text, posix=False, punctuation_chars="|&;<>")
    reader.commenters = ""
    before = ""
    try:
        for token in reader:
            if token in OPERATORS and not before.endswith("\\"):
                return token
            before = token
    except ValueError:
        return None
    return None
