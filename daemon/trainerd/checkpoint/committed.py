"""A committed checkpoint: its name, its place and what its manifest says."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import MANIFEST_NAME, CheckpointName
from trainerd.checkpoint.manifest import Manifest, decode_manifest
from trainerd.contract.regular_file import open_regular
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DAMAGE", "Checkpoint", "place_of", "read_checkpoint"]

MANIFEST_BYTES_MAX: Final = 64 * 1024 * 1024

DAMAGE: Final = frozenset({errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP})
"""What opening a file of a checkpoint says if the checkpoint is not whole. Anything else says that it could
not be observed, which is no evidence of damage."""


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint.

    Attributes:
        name: Its folder's name, ``step-000000120``.
        path: Its folder.
        step: Optimizer steps done.
        ordinal: Which boundary at this step: 0 for the first.
        manifest: What it says of itself.
    """

    name: str
    path: Path
    step: int
    ordinal: int
    manifest: Manifest

    @property
    def place(self) -> CheckpointName:
        """Compare by this to know which of two is the newer one."""
        return CheckpointName(self.step, self.ordinal)


def place_of(path: Path) -> CheckpointName:
    """Return where a checkpoint's folder stands in the order of all."""
    name = CheckpointName.parse(path.name)
    assert name is not None, path
    return name


def read_checkpoint(path: Path, *, name: CheckpointName | None = None) -> Checkpoint:
    """Read a checkpoint's manifest, and no data.

    Args:
        path: Its folder.
        name: Its name, where the folder has another name, as one that was moved aside may have.

    Raises:
        CorruptError: The manifest is missing, ill-formed, or speaks of another step.
        NewerFormatError: A newer trainerd wrote it.
        FileNotFoundError: The whole checkpoint is gone.
        OSError: It could not be read.
    """
    place, source = name or place_of(path), path / MANIFEST_NAME
    try:
        with os.fdopen(open_regular(source), "rb") as file:
            data = file.read(MANIFEST_BYTES_MAX + 1)
    except OSError as error:
        if error.errno in DAMAGE and path.is_dir():
            raise CorruptError(f"{path.name}: {MANIFEST_NAME}: {error.strerror}") from error
        raise
    if len(data) > MANIFEST_BYTES_MAX:
        raise CorruptError(f"{path.name}: {MANIFEST_NAME} is larger than {MANIFEST_BYTES_MAX} bytes")
    manifest = decode_manifest(data, source=f"{path.name}: {MANIFEST_NAME}")
    if manifest.step != place.step:
        raise CorruptError(f"{path.name}: its manifest says step {manifest.step}")
    return Checkpoint(str(place), path, place.step, place.ordinal, manifest)
