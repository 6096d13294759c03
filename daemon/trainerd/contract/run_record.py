"""Which program a run belongs to: ``run.json`` in the folder of a run that has no supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.regular_file import NotRegularError
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

RUN_FORMAT: Final = "trainerd.run/1"


@dataclass(frozen=True)
class RunRecord:
    """Program of a run that has no supervisor.

    Attributes:
        name: Name under which the run was begun, which its checkpoints bear.
        script: The script, relative to the folder in which it was started, or what there is instead.
        arguments: Arguments of the newest attempt.
        is_named: Whether a person chose the name. Such a run is continued only by its name.
    """

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    is_named: bool = False


def write_run_record(path: Path, record: RunRecord) -> None:
    """Write the record durably, unless it is there already.

    Raises:
        SpaceError: The disk is full or read-only.
    """
    if read_run_record(path) != record:
        write_file(path, codec.to_json(record, RUN_FORMAT))


def read_run_record(path: Path) -> RunRecord | None:
    """Return the record, None if there is none that can be read."""
    try:
        return codec.from_json(read_file(path), RunRecord, RUN_FORMAT, source=path)
    except (OSError, CorruptError, NotRegularError):
        return None
