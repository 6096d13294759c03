"""JSON specs: the standard library's parser for the values, one more pass over the text for the lines."""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from trainerd.supervisor.specs.document import Document, check_extent
from trainerd.supervisor.specs.problems import FieldPath, Problem, ProblemsError

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n|[^\s{}\[\],:"]+')


def parse_json(text: str) -> Document:
    """Parse JSON.

    Raises:
        ProblemsError: It is not valid, or a key stands twice.
    """
    try:
        root = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        hint = (
            "JSON has no comments and no comma after the last item"
            if error.pos < len(text)
            else "is it complete?"
        )
        raise ProblemsError(
            Problem(f"not valid JSON: {error.msg} (column {error.colno})", line=error.lineno, hint=hint)
        ) from error
    except ValueError as error:
        raise ProblemsError(Problem(f"not valid JSON: {error}")) from error
    document = Document(root)
    check_extent(document, has_lines=False)  # before the lines: each place costs what its depth costs
    _find_lines(text, document)
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _find_lines(text: str, document: Document) -> None:
    """Walk over the tokens of text that is known to be valid, and note where each value begins."""
    line = 1
    places: list[FieldPath] = []  # of the containers that are open
    expected: list[str | int | None] = []  # in each: the next index, or the key whose value comes, or None
    for word in _TOKEN.findall(text):
        if word == "\n":
            line += 1
        elif word in "}]":
            places.pop()
            expected.pop()
        elif word == ",":
            current = expected[-1]
            expected[-1] = current + 1 if isinstance(current, int) else None
        elif word == ":":
            pass
        elif places and expected[-1] is None:
            expected[-1] = _noted_key(document, places[-1], json.loads(word), line)
        else:
            part = expected[-1] if places else None
            place = () if part is None else (*places[-1], part)
            document.lines.setdefault(place, line)
            if word in "{[":
                places.append(place)
                expected.append(None if word == "{" else 0)


def _noted_key(document: Document, container: FieldPath, key: str, line: int) -> str:
    place = (*container, key)
    if place in document.lines:
        first = document.lines[place]
        raise ProblemsError(
            Problem(f"the key stands here a second time; first on line {first}", field=place, line=line)
        )
    document.lines[place] = line
    return key
