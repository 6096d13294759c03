"""The record of the newest drill of a job: written by `trainerd submit --drill`, shown by `trainerd status`.

It lies in the state folder, beside the runs: a job is drilled before it has a run folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from trainerd.contract import codec
from trainerd.contract.durable import make_directory, read_file, write_file
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = "trainerd.drilled/1"
_PROGRAMS: Final = (".py", ".sh", ".yaml", ".yml", ".toml")

DrillVerdict = Literal["exact", "different", "unchecked"]
"""What a drill shows.

exact: at least one fault was run, and every run is equal to the undisturbed one.
different: a run differs, or an attempt after a fault failed.
unchecked: no fault was run, and nothing else differs.
"""

BYTES_MAX: Final = 1 << 16
"""A longer file is not a record."""


@dataclass(frozen=True)
class DrilledRecord:
    """How the newest drill of a job went.

    Attributes:
        verdict: What the drill shows.
        faults: So many faults were run.
        spec_digest: Of the spec that was drilled.
        wall_s: When, in seconds since the epoch.
        unfit: So many faults were not run because they did not fit the budget.
        began_wall_s: When the drill began, in seconds since the epoch.
        programs: Absolute paths of scripts and settings that the command names.
    """

    verdict: DrillVerdict
    faults: int
    spec_digest: str
    wall_s: float
    unfit: int = 0
    began_wall_s: float = 0.0
    programs: tuple[str, ...] = ()


def programs_of(command: tuple[str, ...], workdir: str) -> tuple[str, ...]:
    """Return the scripts and settings that a command names, by their endings: others may be its output."""
    paths = [os.path.join(workdir, word) for word in command if word.endswith(_PROGRAMS)]  # noqa: PTH118
    return tuple([path for path in dict.fromkeys(paths) if _written_wall_s(path) is not None])


def written_since(record: DrilledRecord) -> tuple[str, ...]:
    """Return the names of those programs that were written or removed since the drill began."""
    written = [(path, _written_wall_s(path)) for path in record.programs]
    changed = [path for path, at_s in written if at_s is None or at_s > record.began_wall_s]
    return tuple([path.rpartition("/")[2] for path in changed])


def _written_wall_s(path: str) -> float | None:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116 - a word of a command need not be a sane path
    except (OSError, ValueError):
        return None


def write_drilled(path: Path, record: DrilledRecord) -> None:
    """Write the record durably, in place of the one before.

    Raises:
        SpaceError: The disk is full or read-only.
        OSError: It may not be written.
    """
    make_directory(path.parent)
    write_file(path, codec.to_json(record, FORMAT))


def read_drilled(path: Path) -> DrilledRecord | None:
    """Read the record; None if there is none, or none that can be read."""
    try:
        data = read_file(path, bytes_max=BYTES_MAX)
        return codec.from_json(data, DrilledRecord, FORMAT, source=path)
    except (OSError, CorruptError):
        return None
