"""Reads TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader


def points(folder: Path) -> list[tuple[str, int, float]]:
    """Return every point of every event file: nothing is hidden as a reader of TensorBoard may do it."""
    found: list[Any] = []
    for path in folder.glob("events.out.tfevents.*"):
        for event in EventFileLoader(str(path)).Load():
            found += [(value.tag, event.step, value.tensor.float_val[0]) for value in event.summary.value]
    return sorted(found)
