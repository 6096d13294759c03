"""What the Checkpointers of a drilled script do, noted for the drill: a line of JSON each.

A session tells a drill by its heartbeat where it is. A script that has none is known by its saves alone.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

SaveEventKind = Literal["open", "resume", "update", "save", "strike", "stop"]

CHECKPOINTERS_NAME: Final = "checkpointers"
"""Folder of the run of a drill below which its Checkpointers save."""

_NAME: Final = "saves.jsonl"
_BYTES_MAX: Final = 16 << 20


@dataclass(frozen=True)
class SaveEvent:
    """One thing that a Checkpointer, or an optimizer beside it, did.

    Attributes:
        kind: ``open``: a Checkpointer was made; ``resume``: its objects were put back; ``update``: the first
            step of an optimizer after one of these; ``save``; ``strike``: the drill is about to disturb the
            process; ``stop``: the drill is about to end it, because it has come far enough.
        attempt: Number of the attempt.
        step: Step of the checkpoint, as the script counts; -1 where there is none.
        epoch: Epoch of the checkpoint, as the script says.
        updates: Steps that optimizers have made in this attempt.
        monotonic_s: When, by the clock that all processes of a boot share.
        folder: Name of the Checkpointer's folder in the drill.
    """

    kind: SaveEventKind
    attempt: int
    step: int = -1
    epoch: int = 0
    updates: int = 0
    monotonic_s: float = 0.0
    folder: str = ""


def add_event(folder: Path | str, event: SaveEvent) -> None:
    """Append an event. A kill of this process does not lose it."""
    line = json.dumps(asdict(event)) + "\n"
    descriptor = os.open(_path(folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_events(folder: Path | str) -> tuple[SaveEvent, ...]:
    """Return the events so far, without a line that is not complete yet."""
    try:
        with _path(folder).open("rb") as file:
            data = file.read(_BYTES_MAX)
    except FileNotFoundError:
        return ()
    return tuple([SaveEvent(**json.loads(line)) for line in data.split(b"\n")[:-1]])


def now_s() -> float:
    """Return the time of an event."""
    return time.monotonic()


def _path(folder: Path | str) -> Path:
    return Path(folder) / _NAME
