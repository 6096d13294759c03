"""Verification: what is on disk is what was written. Nothing is trusted without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.checkpoint.committed import DAMAGE
from trainerd.checkpoint.digest import digest_of_file
from trainerd.checkpoint.direct_read import read_digested
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Collection

    from trainerd.checkpoint.committed import Checkpoint

__all__ = ["verified_content", "verify_files"]


def verify_files(checkpoint: Checkpoint) -> None:
    """Compare the size and digest of every file with the manifest. Foreign files in the folder are ignored.

    All sizes are looked at first: a cut file is found without reading gigabytes.

    Raises:
        CorruptError: Something differs; the message says which file and how.
        OSError: Something could not be read, which says nothing about what is in it.
    """
    verified_content(checkpoint, ())


def verified_content(checkpoint: Checkpoint, names: Collection[str]) -> dict[str, memoryview]:
    """Verify all files, and return the content of some of them: what was hashed, read once.

    Args:
        checkpoint: The checkpoint to read.
        names: The files whose content is wanted; those that the manifest does not name are left out.

    Raises:
        CorruptError: As for `verify_files`.
        OSError: As for `verify_files`.
    """
    name = checkpoint.name
    content: dict[str, memoryview] = {}
    try:
        for entry in checkpoint.manifest.files:
            size = (checkpoint.path / entry.name).lstat().st_size
            if size != entry.bytes:
                raise CorruptError(f"{name}: {entry.name} has {size} bytes, not {entry.bytes}")
        for entry in checkpoint.manifest.files:
            path = checkpoint.path / entry.name
            if entry.name in names:
                content[entry.name], digest = read_digested(path)
            else:
                _, digest = digest_of_file(path)
            if digest != entry.digest:
                raise CorruptError(f"{name}: {entry.name} has digest {digest}, not {entry.digest}")
    except OSError as error:
        if error.errno in DAMAGE and checkpoint.path.is_dir():
            raise CorruptError(f"{name}: {entry.name}: {error.strerror}") from error
        raise
    return content
