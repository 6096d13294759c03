"""Comments that silence the findings of their line."""

from __future__ import annotations

import io
import re
import tokenize
from typing import Final

_SILENCED: Final = re.compile(r"#\s*trainerd:\s*ok\b")


def silenced_lines(source: str) -> frozenset[int]:
    """Return the lines with the comment ``# trainerd: ok``."""
    if not _SILENCED.search(source):  # reading the tokens takes half as long as all rules
        return frozenset()
    lines: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT and _SILENCED.search(token.string):
                lines.add(token.start[0])
    except (tokenize.TokenError, SyntaxError):
        pass
    return frozenset(lines)
