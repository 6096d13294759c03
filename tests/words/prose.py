"""Prose of a file: the pieces of text that are written for readers, with their lines."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.words.rules import WORTH_PARSING

# Code in Markdown: fenced, then inline. The changelog of versions that are out is history.
CODE = re.compile(r"^ *(```|~~~).*?^ *\1 *$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
RELEASED = re.compile(r"^## \[?\d", re.MULTILINE)
ATTRIBUTE = re.compile(r"^ {4,}\w+: (.*)$", re.MULTILINE)


class Piece(NamedTuple):
    """A text for readers.

    Attributes:
        line: Line of the file on which the text begins, from 1.
        text: The text; its newlines are those of the file where the file has it in one piece.
        where: "text", "summary" or "attribute", as in `Rule`.
    """

    line: int
    text: str
    where: str = "text"


def pieces_of(path: Path) -> Iterator[Piece]:
    """Yield the prose of a Markdown file, a Python module, or another file with # comments."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        yield from _in_markdown(path.name, text)
    elif path.suffix == ".py":
        if not WORTH_PARSING.search(text):
            return
        yield from _in_strings(text)
        yield from _in_comments(text)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith("#"):
                yield Piece(number, line)


def _in_markdown(name: str, text: str) -> Iterator[Piece]:
    if name == "CHANGELOG.md" and (released := RELEASED.search(text)):
        text = text[: released.start()]
    yield Piece(1, CODE.sub(lambda code: re.sub(r"[^\n]", "`", code[0]), text))


def _in_strings(source: str) -> Iterator[Piece]:
    nodes = list(ast.walk(ast.parse(source)))
    lines = source.splitlines()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in nodes
        if isinstance(node, documented) and ast.get_docstring(node) is not None
    }
    within = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        text = None
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in within:
            text = node.value
        if text is None or not re.search(r"\s", text.strip()):
            continue  # one word is a name or a value, not prose
        # A literal of one line may hold several: what it says counts once, where it stands.
        spans = node.end_lineno - node.lineno == text.count("\n")
        yield Piece(node.lineno, text if spans else _placed(text, lines[node.lineno - 1 : node.end_lineno]))
        if node in docstrings:
            yield Piece(node.lineno, text.lstrip().partition("\n")[0], "summary")
            for found in ATTRIBUTE.finditer(text):
                yield Piece(node.lineno + text.count("\n", 0, found.start()), found[1], "attribute")


def _placed(text: str, lines: list[str]) -> str:
    """Return `text`, the value of literals on `lines`, with a newline where each line of them begins.

    A literal on several lines has one value. Each line is looked for in the value by its
    words; a finding on a line that is not found there is reported for the line before it.
    """
    text = text.replace("\n", " ")
    result, rest = "", text
    for line in lines[1:]:
        inner = re.search(r"""["']([^"'{}\\]{6,})""", line)
        at = rest.find(inner[1]) if inner else -1
        result, rest = (
            (result + rest[:at] + "\n", rest[at:]) if at >= 0 else (result + "\n" * (at == 0), rest)
        )
    return result + rest


def _in_comments(source: str) -> Iterator[Piece]:
    """Yield comments; those on lines that follow one another are one text."""
    begin, last, text = 0, -1, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        number = token.start[0]
        if number != last + 1:
            if text:
                yield Piece(begin, text)
            begin, text = number, ""
        text += token.string.lstrip("#") + "\n"
        last = number
    if text:
        yield Piece(begin, text)
