"""Files of a framework's own format that are durable and have digests.

A file is written aside, synced and renamed: a crash leaves the former one or the new one. Its digest lies
beside the folder, in ``<folder>.digests``, so that the folder holds what the framework expects.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.digest import digest_of_bytes, digest_of_file
from trainerd.contract.durable import make_directory, read_file, sync_directory, write_file
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

DIGESTS_SUFFIX: Final = ".digests"
_MODE: Final = 0o644


def write_digested(path: Path, content: bytes) -> bytes:
    """Write a file and its digest.

    Args:
        path: The file; its folder must exist.
        content: What it holds.

    Returns:
        The record with the digest, as it lies beside the folder.
    """
    record_path = digest_path(path)
    record = json.dumps({"bytes": len(content), "digest": digest_of_bytes(content)}).encode()
    make_directory(record_path.parent)
    # The record of the former file goes first: a crash in between leaves a file without one, and never a
    # good file with the digest of another.
    record_path.unlink(missing_ok=True)
    sync_directory(record_path.parent)
    write_file(path, content, mode=_MODE)
    write_file(record_path, record)
    return record


def bring_back(path: Path, content: bytes, record: bytes) -> None:
    """Write a file and its digest as they came from another place."""
    make_directory(digest_path(path).parent)
    write_file(digest_path(path), record)
    write_file(path, content, mode=_MODE)


def check_digest(path: Path) -> None:
    """Compare a file with its digest.

    Raises:
        CorruptError: The file is not what was written, or nothing says what was.
        FileNotFoundError: There is no such file.
    """
    size, digest = digest_of_file(path)
    try:
        record = json.loads(read_file(digest_path(path)))
    except (FileNotFoundError, ValueError) as error:
        raise CorruptError(
            f"{path}: there is no readable digest of it in {digest_path(path).parent}"
        ) from error
    if record != {"bytes": size, "digest": digest}:
        raise CorruptError(f"{path} is not what was written: {size} bytes with digest {digest}")


def remove_digested(path: Path) -> None:
    """Remove a file and its digest. One that is gone already is fine."""
    path.unlink(missing_ok=True)
    digest_path(path).unlink(missing_ok=True)


def digest_path(path: Path) -> Path:
    """Return where the digest of a file lies."""
    return path.parent.parent / f"{path.parent.name}{DIGESTS_SUFFIX}" / f"{path.name}.json"
