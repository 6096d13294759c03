"""Number of loader workers in a drill that rehearses a changed number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract import rehearsal

if TYPE_CHECKING:
    from collections.abc import Mapping


def rehearsed_workers(own: int, environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of workers of a loader: its own one, unless a drill asks for another.

    Args:
        own: The number that the script says.
        environ: The environment of the process.
    """
    if rehearsal.VARIABLE not in environ:
        return own
    asked = rehearsal.from_environ(environ)
    if asked is None or not asked.changes_workers:
        return own
    another = another_number(own)
    with (Path(asked.folder) / rehearsal.WORKERS_NAME).open("a") as file:
        file.write(f"{own} became {another}\n")
    return another


def another_number(workers: int) -> int:
    """Return a number of workers that is not `workers` and needs few processes."""
    return 2 if workers < 2 else 1
