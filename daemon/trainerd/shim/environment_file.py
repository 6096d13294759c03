r"""Reads an `env_file`: secrets go from it into the environment of the ranks, and nowhere else.

A line is empty, a comment, or ``NAME=VALUE``, perhaps after ``export``. A value in single quotes is literal;
in double quotes ``\n``, ``\t``, ``\"``, ``\\`` and ``\$`` are understood; one without quotes ends at the end
of the line or before `` #``. Nothing is expanded. Messages name lines, never what stands on them.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

SIZE_BYTES_MAX: Final = 1 << 20

_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=[ \t]*
        (?:'(?P<literal>[^']*)'\s*(?:\#.*)?
          |"(?P<quoted>(?:[^"\\]|\\.)*)"\s*(?:\#.*)?
          |(?P<bare>(?!['"]).*?)\s*(?:(?<=\s)\#.*)?)""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)")
_MEANING: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$", "`": "`"}


def read_environment_file(path: Path) -> dict[str, str]:
    """Read the variables that a file sets; a later line wins over an earlier one.

    Raises:
        UserError: It is no such file; the message names the line, and never shows it.
    """
    variables = {}
    for number, line in enumerate(_read_text(path).replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise UserError(
                f"{path}:{number}: this line is not NAME=VALUE",
                hint="write NAME=value, NAME='literal' or NAME=\"with \\n escapes\", one a line",
            )
        variables[match["name"]] = _value(match)
    return variables


def _value(match: re.Match[str]) -> str:
    if match["literal"] is not None:
        return match["literal"]
    if match["quoted"] is not None:
        return _ESCAPED.sub(lambda found: _MEANING.get(found[1], found[0]), match["quoted"])
    return match["bare"]


def _read_text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"env_file: {path} is not a regular file", hint="name a file of NAME=VALUE lines")
        # Not to wait for a writer, should another process put a pipe there just now.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError(
            f"env_file: cannot read {path}: {error.strerror}", hint="the file must be there at each launch"
        ) from error
    if len(data) > SIZE_BYTES_MAX:
        raise UserError(f"env_file: {path} is larger than {SIZE_BYTES_MAX} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Not chained: the cause carries the bytes.
        raise UserError(f"env_file: {path} is not UTF-8 text") from None
