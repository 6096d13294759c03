"""Verification: what is on disk is what was written. Nothing is trusted without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.checkpoint.checkpoint import DAMAGE
from trainerd.checkpoint.digest import digest_of_file
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from trainerd.checkpoint.checkpoint import Checkpoint

__all__ = ["verify_files"]


def verify_files(checkpoint: Checkpoint) -> None:
    """Compare the size and digest of every file with the manifest. Foreign files in the folder are ignored.

    All sizes are looked at first: a cut file is found without reading gigabytes.

    Raises:
        CorruptError: Something differs; the message says which file and how.
        OSError: Something could not be read, which says nothing about what is in it.
    """
    name = checkpoint.name
    try:
        for entry in checkpoint.manifest.files:
            size = (checkpoint.path / entry.name).lstat().st_size
            if size != entry.bytes:
                raise CorruptError(f"{name}: {entry.name} has {size} bytes, not {entry.bytes}")
        for entry in checkpoint.manifest.files:
            _, digest = digest_of_file(checkpoint.path / entry.name)
            if digest != entry.digest:
                raise CorruptError(f"{name}: {entry.name} has digest {digest}, not {entry.digest}")
    except OSError as error:
        if error.errno in DAMAGE and checkpoint.path.is_dir():
            raise CorruptError(f"{name}: {entry.name}: {error.strerror}") from error
        raise
