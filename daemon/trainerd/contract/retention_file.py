"""The file in which a run says what it keeps, for those that have no script to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.contract import codec
from trainerd.contract.durable import read_file
from trainerd.contract.policy import RETENTION_FORMAT, RetentionPolicy

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths


def read_retention(run: RunPaths) -> RetentionPolicy:
    """Return what the newest attempt of a run keeps.

    Raises:
        FileNotFoundError: No session of it has said so yet.
        OSError: The file cannot be read.
        CorruptError: It is damaged.
    """
    return codec.from_json(read_file(run.retention), RetentionPolicy, RETENTION_FORMAT, source=run.retention)
