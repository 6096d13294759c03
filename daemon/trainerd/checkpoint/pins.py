"""Pins: a person's wish that a checkpoint be kept whatever retention says.

A pin is a small durable file beside the checkpoint, ``step-000000120.pin.json``, so it can be set and taken
away while training writes, and survives everything but being taken away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import PIN_SUFFIX, CheckpointName
from trainerd.contract.codec import from_json, to_json
from trainerd.contract.durable import read_file, sync_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Pin", "pins", "remove_pin", "set_pin"]

PIN_FORMAT: Final = "trainerd.pin/1"

REMOVED = declare("pin.removed", "the checkpoint without its pin; after a power cut perhaps still with it")


@dataclass(frozen=True)
class Pin:
    """Why a checkpoint is pinned, and since when, in seconds since the epoch."""

    note: str
    pinned_wall_s: float


def pins(directory: Path) -> dict[str, Pin]:
    """Return the pins in a checkpoints folder, by the checkpoint's name.

    One that cannot be read still pins.
    """
    found = {}
    for path in directory.glob(f"step-*{PIN_SUFFIX}"):
        name = path.name.removesuffix(PIN_SUFFIX)
        if CheckpointName.parse(name) is None:
            continue
        try:
            found[name] = from_json(read_file(path), Pin, PIN_FORMAT, source=path)
        except FileNotFoundError:
            continue
        except (OSError, CorruptError):
            found[name] = Pin("its note cannot be read", 0.0)
    return found


def set_pin(directory: Path, name: str, pin: Pin) -> None:
    """Pin a checkpoint, or change the note of its pin."""
    write_file(directory / f"{name}{PIN_SUFFIX}", to_json(pin, PIN_FORMAT))


def remove_pin(directory: Path, name: str) -> bool:
    """Take a pin away; return whether there was one."""
    try:
        (directory / f"{name}{PIN_SUFFIX}").unlink()
    except FileNotFoundError:
        return False
    REMOVED.hit()
    sync_directory(directory)
    return True
