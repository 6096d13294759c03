"""TOML specs: the standard library's parser for the values, a scan of the lines for where they stand."""

from __future__ import annotations

import re
import tomllib
from typing import Final

from trainerd.supervisor.specs.document import DEPTH_MAX, Document, check_extent, too_deep
from trainerd.supervisor.specs.problems import FieldPath, Problem, ProblemsError

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY: Final = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE: Final = re.compile(rf"\s*\[(\[?)\s*({_KEY})\s*\]")
_ASSIGNMENT: Final = re.compile(rf"\s*({_KEY})\s*=")
_MULTI_LINE: Final = re.compile(r'"""|\'\'\'')
_TOKEN: Final = re.compile(
    r"#[^\n]*"
    r'|"""(?:[^\\]|\\.)*?"""'
    r"|'''.*?'''"
    r"""|(?P<part>[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
    r"|[ \t]+|.",
    re.DOTALL,
)
_AT_LINE: Final = re.compile(r" ?\(at line (\d+), column (\d+)\)")


def parse_toml(text: str) -> Document:
    """Parse TOML.

    Raises:
        ProblemsError: It is not valid.
    """
    _check_keys(text)
    try:
        document = Document(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        found = _AT_LINE.search(str(error))
        line = (
            int(found[1]) if found else None if "end of document" not in str(error) else text.count("\n") + 1
        )
        raise ProblemsError(Problem(f"not valid TOML: {_AT_LINE.sub('', str(error))}", line=line)) from error
    except ValueError as error:
        raise ProblemsError(Problem(f"not valid TOML: {error}")) from error
    check_extent(document, has_lines=False)
    _find_lines(text, document)
    return document


def _check_keys(text: str) -> None:
    """Refuse keys of very many parts before they are parsed: the time for that grows with their square.

    Raises:
        ProblemsError: There is one.
    """
    parts, line = 0, 1
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word == ".":
            parts += 1
        elif token.lastgroup != "part" and not word.isspace():
            parts = 0
        if "\n" in word:
            line += word.count("\n")
            parts = 0
        if parts >= DEPTH_MAX:
            raise ProblemsError(too_deep(line))


def _find_lines(text: str, document: Document) -> None:
    """Note the line of each table and key. Inside an inline table, its own line is near enough."""
    table: FieldPath = ()
    tables_seen: dict[FieldPath, int] = {}
    quotes: str | None = None
    for line, content in enumerate(text.splitlines(), start=1):
        was_inside, quotes = quotes is not None, _quotes_after(content, quotes)
        if was_inside:
            continue
        if header := _TABLE.match(content):
            table = _parts(header[2])
            if header[1]:
                tables_seen[table] = tables_seen.get(table, -1) + 1
                table = (*table, tables_seen[table])
            document.lines.setdefault(table, line)
        elif assignment := _ASSIGNMENT.match(content):
            place = table
            for part in _parts(assignment[1]):
                place = (*place, part)
                document.lines.setdefault(place, line)


def _parts(key: str) -> FieldPath:
    return tuple(part.strip("\"'") for part in re.findall(_PART, key))


def _quotes_after(content: str, quotes: str | None) -> str | None:
    """Return which multi-line quotes are open after this line, given those open before it."""
    for found in _MULTI_LINE.findall(content):
        if quotes is None:
            quotes = found
        elif quotes == found:
            quotes = None
    return quotes
