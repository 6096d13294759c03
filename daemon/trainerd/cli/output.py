"""How verbs print: tables for people, JSON for programs, and a quiet end where the reader leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from trainerd.contract import codec
from trainerd.contract.nonfinite import spelled
from trainerd.contract.safe_text import safe_line, safe_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_PIPE_COLUMNS: Final = 2000
"""Width of a table that goes into a pipe: there, nothing is cut."""

STATE_STYLES: Final = {
    "running": "green",
    "finished": "bold green",
    "draining": "yellow",
    "backing-off": "yellow",
    "paused": "yellow",
    "parked": "bold red",
    "faulted": "bold red",
    "rejected": "bold red",
    "stopped": "dim",
}


def print_json(value: Any) -> None:
    """Print a view, or a list or dict of them, as one JSON document."""
    click.echo(json.dumps(spelled(_plain(value)), indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Print one JSON object on a line of its own, and let it through at once."""
    click.echo(json.dumps(spelled(_plain(value)), ensure_ascii=False))
    sys.stdout.flush()


def wanted_color() -> bool | None:
    """Return False where NO_COLOR is set; None leaves it to whether the output is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def make_console() -> Console:
    """Return a console that is as wide as its reader, and has colours where they are wanted."""
    from rich.console import Console

    width = None if _is_sized() else _PIPE_COLUMNS
    return Console(width=width, highlight=False, markup=False, emoji=False)


def terminal_width() -> int | None:
    """Return how many characters a line may have, None where nothing has to fit."""
    return make_console().width if _is_sized() else None


def _is_sized() -> bool:
    return sys.stdout.isatty() or "COLUMNS" in os.environ


def make_table(*headings: str, right: tuple[str, ...] = (), flexible: str | None = None) -> Table:
    """Return an empty table without lines.

    Args:
        headings: Of the columns.
        right: Those whose values are numbers.
        flexible: The one that is cut where the terminal is too narrow.
    """
    from rich.table import Table

    class SafeTable(Table):
        """Escapes what its cells hold of control characters."""

        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(
                *(safe_line(cell) if isinstance(cell, str) else cell for cell in cells), **options
            )

    table = SafeTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        # rich shrinks only the columns that may wrap; `cut` then keeps the cells of this one on their line.
        table.add_column(
            heading, justify="right" if heading in right else "left", no_wrap=heading != flexible
        )
    return table


def cut(text: str) -> Text:
    """Return a cell for a flexible column: what does not fit is cut, with an ellipsis."""
    from rich.text import Text

    return Text(safe_line(text), no_wrap=True, overflow="ellipsis")


def show(renderable: RenderableType) -> None:
    """Print something of rich's, without the blanks that it puts at the ends of lines."""
    console = make_console()
    with console.capture() as captured:
        console.print(renderable)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=True)


def show_lines(lines: Sequence[Text]) -> None:
    """Print lines of rich's as they are: none is wrapped or cut."""
    console = make_console()
    for line in lines:
        with console.capture() as captured:
            console.print(line, soft_wrap=True)
        click.echo(captured.get().rstrip(), color=True)


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
    """End silently when the user presses Ctrl-C or the reader of our output leaves, as ``head`` does."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The interpreter flushes once more when it ends: let it do so into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


def pause(seconds: float) -> None:
    """Wait before looking again, and notice at once when the reader of our output leaves meanwhile.

    Raises:
        BrokenPipeError: It has left; without this, a follower that has nothing to print would never learn.
    """
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    for _, events in reader.poll(seconds * 1000):
        if events & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return safe_text(value, characters_max=sys.maxsize)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return _plain(codec.to_plain(value))
    return value
