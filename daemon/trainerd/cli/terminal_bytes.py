"""What a job prints, made safe for a terminal: sequences may move the cursor or set the title."""

from __future__ import annotations

import re
from typing import Final

_UNSAFE: Final = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"  # control characters but tab, ends of lines and escape
    rb"|\x1b(?!\[[0-9;]*m)"  # escape sequences but those of colours
    rb"|\xc2(?:[\x80-\x9f]|\Z)"  # the second set of control characters, in UTF-8, also if cut off here
)


def for_terminal(data: bytes) -> bytes:
    r"""Return `data` with control characters and escape sequences written as ``\xNN``; colours stay."""
    return _UNSAFE.sub(lambda found: b"".join(b"\\x%02x" % byte for byte in found[0]), data)
