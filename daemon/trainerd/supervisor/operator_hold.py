"""Whether the supervisor starts nothing for now: a file, so that it is true after a restart too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.durable import sync_directory, write_file
from trainerd.contract.failpoints import declare

if TYPE_CHECKING:
    from pathlib import Path

HOLD_FORMAT: Final = "trainerd.hold/1"

HOLD_LIFTED = declare(
    "hold.lifted", "no `hold.json`: the supervisor starts jobs again, here and after a crash"
)


@dataclass(frozen=True)
class Hold:
    """Why nothing is started.

    Attributes:
        since_wall_s: Since when, seconds since the epoch.
    """

    since_wall_s: float


def is_on_hold(path: Path) -> bool:
    """Return whether nothing is to be started. What the file says is for people: that it is there counts."""
    return path.exists()


def put_on_hold(path: Path, *, now_wall_s: float) -> None:
    """Make it so that nothing is started until `lift_hold`; durable when this returns.

    Raises:
        SpaceError: The disk is full or read-only.
    """
    if not is_on_hold(path):
        write_file(path, codec.to_json(Hold(now_wall_s), HOLD_FORMAT))


def lift_hold(path: Path) -> None:
    """Let jobs start again; durable when this returns."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
    HOLD_LIFTED.hit()
