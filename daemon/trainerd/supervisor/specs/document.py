"""A spec as a tree of plain values with the line of each, and the limits of such a tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from trainerd.supervisor.specs.problems import FieldPath, Problem, ProblemsError

BYTES_MAX: Final = 1024 * 1024
DEPTH_MAX: Final = 16
NODES_MAX: Final = 20_000
"""Values in one spec, counted with every alias written out: an alias bomb stops here."""

INT_BITS_MAX: Final = 64
"""Largest whole number in a spec, in bits: no field takes one as large, and larger ones cost time to show."""

SUFFIXES: Final = (".yaml", ".yml", ".toml", ".json")

_MISSPELT: Final = frozenset({".jsn", ".jsonn", ".tml", ".yaaml", ".yam", ".yamll", ".yamml", ".ymll"})
_LETTERS: Final = {"".join(sorted(suffix)): suffix for suffix in SUFFIXES}


def meant_suffix(file_name: str) -> str | None:
    """Return the ending that a misspelt one was to be, as `.yaml` for `foo.ymal`; None for other files.

    A file of this kind is no spec. It is refused by name rather than passed over.
    """
    stem, dot, ending = file_name.lower().rpartition(".")
    if not stem or not dot or f".{ending}" in SUFFIXES:
        return None
    if ending == "txt":
        return next((suffix for suffix in SUFFIXES if stem.endswith(suffix)), None)
    found = _LETTERS.get("".join(sorted(f".{ending}")))
    if found is None and f".{ending}" in _MISSPELT:
        found = next(suffix for suffix in (".json", ".toml", ".yaml") if suffix[1] == ending[0])
    return found


@dataclass
class Document:
    """A tree of plain values and where each stands.

    Attributes:
        root: The mapping at the top; `parse` has made sure that it is one.
        lines: 1-based line of each place, as far as it is known.
        written: Text of scalars that are not read as what they look like, such as ``no`` for False.
    """

    root: Any
    lines: dict[FieldPath, int] = field(default_factory=dict)
    written: dict[FieldPath, str] = field(default_factory=dict)

    def line_of(self, place: FieldPath) -> int | None:
        """Return the line of `place`, or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)


def check_extent(document: Document, *, has_lines: bool = True) -> None:
    """Return if a tree is no larger and no deeper than a spec may be, and its numbers have few digits.

    Args:
        document: The tree.
        has_lines: Whether its lines are known; numbers are judged once they are.

    Raises:
        ProblemsError: It is.
    """
    nodes = 0
    pending: list[tuple[Any, FieldPath]] = [(document.root, ())]
    while pending:
        value, place = pending.pop()
        nodes += 1
        if nodes > NODES_MAX:
            raise ProblemsError(too_many())
        if len(place) >= DEPTH_MAX:
            raise ProblemsError(too_deep(document.line_of(place)))
        if isinstance(value, dict):
            pending += [(item, (*place, key)) for key, item in value.items()]
        elif isinstance(value, list):
            pending += [(item, (*place, index)) for index, item in enumerate(value)]
        elif has_lines and isinstance(value, int) and value.bit_length() > INT_BITS_MAX:
            raise ProblemsError(too_large_a_number(place, document.line_of(place)))


def too_large_a_number(place: FieldPath, line: int | None = None) -> Problem:
    """Describe a number with too many digits. It is not shown: that alone may take seconds."""
    return Problem(
        f"the number is out of range: it has more than {INT_BITS_MAX} bits",
        place,
        line,
        "write a number that the field can take, or put it in quotes if it is text",
    )


def too_deep(line: int | None = None) -> Problem:
    """Describe a spec whose values are nested too deeply."""
    return Problem(
        f"values are nested more than {DEPTH_MAX} deep", line=line, hint="a spec needs four levels at most"
    )


def too_many(line: int | None = None) -> Problem:
    """Describe a spec with too many values."""
    return Problem(f"the spec holds more than {NODES_MAX} values", line=line, hint="a spec is a page of text")


def kind_name(value: object) -> str:
    """Say what `value` is, in the user's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value!r:.60}"
    names: dict[type, str] = {dict: "a mapping", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")
