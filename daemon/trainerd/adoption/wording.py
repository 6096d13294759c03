"""Text of a piece of a script, as its author wrote it."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trainerd.analysis.script import Script

_LINE_END: Final = re.compile(r"\r\n|\r|\n")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text as the parser counts them: `str.splitlines` ends lines elsewhere, too."""
    return _LINE_END.split(text)


def text_of(script: Script, node: ast.expr) -> str:
    """Return the text of an expression; that of several lines on one line."""
    text = ast.get_source_segment(script.source, node)
    return text if text is not None and "\n" not in text else ast.unparse(node)


def target_text(script: Script, node: ast.expr) -> str:
    """Return the text of the target of a loop: without the parentheses that a tuple has by itself."""
    text = text_of(script, node)
    if isinstance(node, ast.Tuple) and text.startswith("(") and text == ast.unparse(node):
        return text[1:-1]
    return text
