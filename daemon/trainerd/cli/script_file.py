"""Scripts as files: read within bounds, written back in their own encoding and with their own line ends."""

from __future__ import annotations

import io
import stat
import tokenize
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT_BYTES_MAX: Final = 4 << 20
"""Largest file that is read as a script, in bytes."""


def shown_name(file: Path) -> str:
    """Return a file name without control characters, which would move the reader's cursor."""
    return "".join(each if each.isprintable() else "?" for each in click.format_filename(file))


class UnreadableScriptError(Exception):
    """A file that cannot be read as a script."""


def script_bytes(file: Path) -> bytes:
    """Return the contents of a script.

    Raises:
        UnreadableScriptError: It is missing, a folder, not a plain file, too large, or may not be read.
    """
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableScriptError("is a folder; name the scripts in it that open a session")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableScriptError("is not a plain file")
        if status.st_size > SCRIPT_BYTES_MAX:
            raise UnreadableScriptError(f"has more than {SCRIPT_BYTES_MAX >> 20} MiB, which is no script")
        return file.read_bytes()
    except OSError as error:
        raise UnreadableScriptError(error.strerror or str(error)) from error
    except ValueError as error:  # a null byte in the name
        raise UnreadableScriptError(str(error)) from error


def encoded_as(text: str, data: bytes) -> bytes:
    """Return a text in the encoding and with the line ends of the contents that it takes the place of."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    if b"\r\n" in data:
        text = text.replace("\n", "\r\n")
    return text.encode(encoding)
