"""Parses the text of a spec into a document, by the ending of its file name.

Imports a parser when it is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.supervisor.specs.document import (
    BYTES_MAX,
    SUFFIXES,
    Document,
    check_extent,
    kind_name,
    too_deep,
)
from trainerd.supervisor.specs.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable


def parse(data: bytes, suffix: str) -> Document:
    """Parse the bytes of a spec.

    Args:
        data: The file's content.
        suffix: Its name's ending, which says the format: one of `SUFFIXES`.

    Raises:
        ProblemsError: It cannot be parsed, or is too large, too deep, or no mapping.
    """
    if len(data) > BYTES_MAX:
        raise ProblemsError(
            Problem(f"the file is larger than {BYTES_MAX} bytes", hint="a spec is a page of text")
        )
    text = _decoded(data)
    if not text.strip():
        raise ProblemsError(Problem("the file is empty", hint="a spec needs at least a command"))
    try:
        document = _parser(suffix)(text)
    except RecursionError:
        raise ProblemsError(too_deep()) from None
    if not isinstance(document.root, dict):
        kind = kind_name(document.root)
        raise ProblemsError(
            Problem(
                f"the file holds {kind} at the top, not fields",
                line=1,
                hint="begin with a line such as command: …",
            )
        )
    check_extent(document)
    return document


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProblemsError(
            Problem("the file is not UTF-8 text", line=line, hint="save it as UTF-8")
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ProblemsError(
            Problem("the file holds a NUL character", line=line, hint="save it as UTF-8 text")
        )
    return text


def _parser(suffix: str) -> Callable[[str], Document]:
    if suffix == ".json":
        from trainerd.supervisor.specs.json_document import parse_json

        return parse_json
    if suffix == ".toml":
        from trainerd.supervisor.specs.toml_document import parse_toml

        return parse_toml
    if suffix in {".yaml", ".yml"}:
        from trainerd.supervisor.specs.yaml_document import parse_yaml

        return parse_yaml
    raise ProblemsError(
        Problem(f"a spec's name ends in one of {', '.join(SUFFIXES)}, not in {suffix!r}", hint="rename it")
    )
