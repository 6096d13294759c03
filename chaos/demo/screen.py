"""What a person sees: a timeline that grows, and under it the progress of the jobs.

On a terminal the progress is redrawn in place; elsewhere it is a plain line now and then.
"""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PLAIN_EVERY_S: Final = 5.0
BAR_COLUMNS: Final = 10
PICTURE_COLUMNS: Final = 104

_STATE_STYLES: Final = {
    "running": "green",
    "finished": "bold green",
    "draining": "yellow",
    "backing-off": "yellow",
}


class Screen:
    """Writes to a terminal, or to whatever standard output is."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8) if self._console.is_terminal else None
        self._began_s = time.monotonic()
        self._transcript: list[RenderableType] = []
        self._progress: RenderableType = Text()
        self._plain_shown: dict[str, tuple[object, float]] = {}

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Add a line to the timeline."""
        when = f"{time.monotonic() - self._began_s:.1f} s"
        line = Table.grid(padding=(0, 2))
        line.add_column(width=8, justify="right", style="dim")
        line.add_column(overflow="fold")
        line.add_row(when, Text(text, style=style))
        self._print(line, f"{when:>8}  {text}")

    def conclude(self, title: str, rows: list[tuple[str, str, str]], *, is_good: bool) -> None:
        """Print the end of the story: rows of (what, whose, value) under a title."""
        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row(*row)
        self._print(Text(), "")
        self._print(Padding(Text(title, style="bold green" if is_good else "bold red"), (0, 2)), f"  {title}")
        plain = [f"  {what:<20}{whose:<14}{value}" for what, whose, value in rows]
        self._print(Padding(table, (0, 2)), "\n".join(plain))

    def show(self, jobs: list[dict[str, Any]]) -> None:
        """Show where the jobs are, as the API describes them."""
        self._progress = Group(Text(), Padding(progress_table(jobs), (0, 2)))
        if self._live is not None:
            self._live.update(self._progress)
            return
        for job in jobs:
            self._show_plainly(job)

    def clear(self) -> None:
        """Take the progress away: from here on the timeline says all."""
        if self._live is not None:
            self._live.update(Text(), refresh=True)

    def freeze(self) -> None:
        """Keep the progress of this moment for the picture."""
        self._transcript += [self._progress, Text()]

    def save_svg(self, path: Path) -> None:
        """Save the timeline, with the frozen progress in its place, as a picture."""
        console = Console(
            record=True,
            width=PICTURE_COLUMNS,
            file=io.StringIO(),
            force_terminal=True,
            color_system="truecolor",
            highlight=False,
        )
        console.print(Text("$ make demo", style="bold"))
        for part in self._transcript:
            console.print(part)
        picture = console.export_svg(title="make demo")
        # It would load fonts from elsewhere; a picture in a repository should need no other site.
        picture = re.sub(r"@font-face\s*\{.*?\}\s*", "", picture, flags=re.DOTALL)
        path.write_text(picture, encoding="utf-8")

    def _print(self, part: RenderableType, plain: str) -> None:
        """Print `part` on a terminal; elsewhere `plain`, whose lines are never broken."""
        self._transcript.append(part)
        if self._live is not None:
            self._console.print(part)
        else:
            self._console.print(plain, soft_wrap=True, markup=False)

    def _show_plainly(self, job: dict[str, Any]) -> None:
        now_s = time.monotonic()
        mark = (job["state"], job["attempt"], job["epoch"], job["checkpoint_step"])
        shown, shown_s = self._plain_shown.get(job["name"], (None, 0.0))
        if mark != shown or (job["state"] == "running" and now_s - shown_s > PLAIN_EVERY_S):
            self._plain_shown[job["name"]] = (mark, now_s)
            self._console.print(
                f"          {job['name']:<12} {' '.join(progress_words(job))}", soft_wrap=True
            )


def progress_words(job: dict[str, Any]) -> list[str]:
    """Return the progress of a job as words, leaving out what is not known yet."""
    words = [job["state"], f"attempt {job['attempt']}"]
    if job["step"] is not None:
        words.append(f"epoch {_epoch(job)} step {job['step']}")
    if isinstance(job["loss"], float):
        words.append(f"loss {job['loss']:.4f}")
    if job["checkpoint_step"] is not None:
        words.append(f"checkpoint {job['checkpoint_step']}")
    return words


def progress_table(jobs: list[dict[str, Any]]) -> Table:
    """Return a table with one line a job."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("JOB", "STATE", "ATTEMPT", "EPOCH", "STEP", "DONE", "LOSS", "CHECKPOINT"):
        table.add_column(title)
    for job in jobs:
        table.add_row(
            Text(job["name"], style="bold"),
            Text(job["state"], style=_STATE_STYLES.get(job["state"], "")),
            str(job["attempt"]),
            _epoch(job),
            _or_dash(job["step"]),
            ProgressBar(total=job["batches"] or 1, completed=_batches_done(job), width=BAR_COLUMNS),
            f"{job['loss']:.4f}" if isinstance(job["loss"], float) else "-",
            f"step {job['checkpoint_step']}" if job["checkpoint_step"] is not None else "-",
        )
    return table


def _epoch(job: dict[str, Any]) -> str:
    if job["epoch"] is None or not job["epochs"]:
        return "-"
    return f"{min(job['epoch'] + 1, job['epochs'])}/{job['epochs']}"


def _batches_done(job: dict[str, Any]) -> float:
    if job["state"] == "finished":
        return float(job["batches"] or 1)
    return float(job["batch"] or 0)


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
