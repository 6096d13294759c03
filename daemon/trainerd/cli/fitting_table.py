"""A table of which each row is one line: columns are left out, the least important first, until it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.safe_text import safe_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

GAP: Final = 2
"""Between two columns, in characters."""

FLEXIBLE_MIN: Final = 12
"""Narrowest column of text that is still worth showing, in characters."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: Its name.
        importance: Columns of lower importance are left out first; `ALWAYS` is never left out.
        is_number: Whether it is aligned to the right.
        is_flexible: Whether its cells may be cut.
    """

    heading: str
    importance: int
    is_number: bool = False
    is_flexible: bool = False


ALWAYS: Final = 1_000


def chosen_columns(
    columns: Sequence[Column], widths: Sequence[int], width: int | None
) -> list[tuple[int, int]]:
    """Return the numbers of the columns to show, each with its width: pure.

    Args:
        columns: All of them.
        widths: What each needs for its widest cell, in characters.
        width: That of the terminal; None for no limit.
    """
    shown = list(range(len(columns)))
    while width is not None:
        needs = sum(_narrowest(columns[number], widths[number]) for number in shown)
        if needs + GAP * (len(shown) - 1) <= width:
            break
        least = min(shown, key=lambda number: columns[number].importance)
        if columns[least].importance >= ALWAYS:
            break
        shown.remove(least)
    fixed = sum(widths[number] for number in shown if not columns[number].is_flexible)
    left = None if width is None else width - fixed - GAP * (len(shown) - 1)
    return [
        (
            number,
            min(widths[number], max(left, 1))
            if columns[number].is_flexible and left is not None
            else widths[number],
        )
        for number in shown
    ]


def _narrowest(column: Column, width: int) -> int:
    return min(width, FLEXIBLE_MIN) if column.is_flexible else width


def fitting_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int | None
) -> list[Text]:
    """Return the heading and a line for each row, without blanks at their ends."""
    from rich.text import Text

    heading = [Text(column.heading, style="bold") for column in columns]
    cells = [heading, *([_cell(each) for each in row] for row in rows)]
    widths = [max(row[number].cell_len for row in cells) for number in range(len(columns))]
    chosen = chosen_columns(columns, widths, width)
    lines = []
    for row in cells:
        line = Text(no_wrap=True, overflow="ignore", end="")
        for place, (number, cell_width) in enumerate(chosen):
            cell = row[number].copy()
            cell.truncate(cell_width, overflow="ellipsis")
            padding = " " * (cell_width - cell.cell_len)
            gap = " " * GAP if place else ""
            line = Text.assemble(
                line, gap, *((padding, cell) if columns[number].is_number else (cell, padding))
            )
        line.rstrip()
        lines.append(line)
    return lines


def _cell(value: str | Text) -> Text:
    from rich.text import Text

    return Text(safe_line(value)) if isinstance(value, str) else value
