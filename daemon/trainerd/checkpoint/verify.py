"""Verification: what is on disk is what was written. Nothing is trusted without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.checkpoint.digest import file_digest
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.checkpoint.manifest import Manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Read every file of a checkpoint and compare sizes and digests.

    Raises:
        CorruptError: A file is missing, or is not what was written; the message says which and how.
        OSError: A file could not be read for another reason, which says nothing about what is in it.
    """
    if not manifest.files:
        raise CorruptError(f"{folder.name}: the manifest names no files")
    for entry in manifest.files:
        if "/" in entry.name or entry.name.startswith("."):
            raise CorruptError(f"{folder.name}: {entry.name!r} is not the name of a file of a checkpoint")
        try:
            size = (folder / entry.name).stat().st_size
        except FileNotFoundError:
            raise CorruptError(f"{folder.name}: {entry.name} is missing") from None
        if size != entry.bytes:
            raise CorruptError(f"{folder.name}: {entry.name} has {size} bytes, not {entry.bytes}")
        found = file_digest(folder / entry.name)
        if found != entry.digest:
            raise CorruptError(f"{folder.name}: {entry.name} has digest {found}, not {entry.digest}")
