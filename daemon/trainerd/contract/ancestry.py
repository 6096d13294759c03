"""Which processes stand between a process and one of its ancestors, read from /proc."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from trainerd.contract.process import stat_fields
from trainerd.contract.safe_text import safe_line

GENERATIONS_MAX: Final = 64
"""How many parents are followed: a process table that changes meanwhile must not lead in a circle."""

WORD_CHARACTERS_MAX: Final = 60

_FLAGS: Final = frozenset({b"-u", b"-e", b"-E", b"-I", b"-O", b"-OO", b"-P", b"-s", b"-S", b"-x", b"-l"})
"""Options of interpreters and shells that take no value."""


def parent_pid(pid: int) -> int | None:
    """Return the number of a process's parent, None if that cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat_fields(stat)[1])


def line_of_descent(pid: int, ancestor: int) -> tuple[int, ...]:
    """Return the processes below `ancestor` that lead to `pid`, outermost first and `pid` last.

    Empty if `ancestor` is not above it.
    """
    line: list[int] = []
    current: int | None = pid
    while current and len(line) < GENERATIONS_MAX:
        if current == ancestor:
            return tuple(line[::-1])
        line.append(current)
        current = parent_pid(current)
    return ()


def short_command(pid: int) -> str:
    """Return a process's program and script in a few words, such as ``python train.py``.

    What follows is left out, and so are options and their values: a command line may hold secrets.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        words = []
    shown = [_shown(word) for word in words[:1]]
    more = words[1:]
    while more and more[0] in _FLAGS:
        more = more[1:]
    if len(more) > 1 and more[0] == b"-m":
        shown += ["-m", _shown(more[1])]
    elif more and not more[0].startswith(b"-"):
        shown.append(_shown(more[0]))
    return " ".join(word for word in shown if word) or "?"


def _shown(word: bytes) -> str:
    name = word.decode(errors="replace").rstrip("/").rpartition("/")[2]
    return safe_line(name, characters_max=WORD_CHARACTERS_MAX)
