"""Copying checkpoints to another place and back, with every digest checked on the way."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import MANIFEST_NAME, CheckpointName
from trainerd.checkpoint.digest import READ_BYTES, Hasher, digest_of_bytes
from trainerd.checkpoint.manifest import decode_manifest, encode_manifest
from trainerd.checkpoint.reading import reading
from trainerd.contract.regular_file import open_regular
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.checkpoint.manifest import FileEntry
    from trainerd.checkpoint.storage import Storage
    from trainerd.checkpoint.store import CheckpointStore

__all__ = ["Pace", "pull", "pull_history", "pull_newest", "push", "stored_names"]

Pace = Callable[[Iterator[bytes]], Iterator[bytes]]

HISTORY_BYTES_MAX: Final = 1 << 30
"""A longer metric history is not copied."""

_HISTORY: Final = re.compile(r"history-([0-9a-f]+)\.jsonl\.gz")


def push(checkpoint: Checkpoint, storage: Storage, *, history: Path | None = None, pace: Pace = iter) -> bool:
    """Copy a checkpoint to a storage; return whether there was anything to do.

    One of the same name that is not the same checkpoint, because a fork came between, is replaced.

    Args:
        checkpoint: The checkpoint to copy.
        storage: Where to.
        history: Metric history, of which what belongs to the checkpoint goes with it, compressed.
        pace: Passes the parts of a file on, at the speed that is wanted.

    Raises:
        CorruptError: It does not verify; nothing of it is in the storage.
        SpaceError: The storage is full.
        OSError: The storage could not be reached.
    """
    text = encode_manifest(checkpoint.manifest)
    if checkpoint.name in storage.folders():
        if b"".join(storage.read(checkpoint.name, MANIFEST_NAME)) == text:
            return False
        storage.remove(checkpoint.name)
    with reading(checkpoint.path):
        storage.put(checkpoint.name, _files(checkpoint, text, history, pace))
    return True


def pull(name: str, storage: Storage, store: CheckpointStore) -> Checkpoint:
    """Copy a checkpoint from a storage into a store, whose lock is held.

    Raises:
        FileNotFoundError: The storage has none of that name.
        CorruptError: What came is not what was written; the store is unchanged.
        SpaceError: The disk is full.
        OSError: The storage could not be reached.
    """
    source = f"{name}: {MANIFEST_NAME}"
    manifest = decode_manifest(b"".join(storage.read(name, MANIFEST_NAME)), source=source)
    staging = store.begin(manifest.step)
    try:
        for entry in manifest.files:
            try:
                written = staging.write(entry.name, storage.read(name, entry.name))
            except FileNotFoundError as error:
                raise CorruptError(f"{name}: {entry.name} is missing") from error
            _check_arrived(name, entry, written)
        return store.commit(staging, manifest)
    except BaseException:
        staging.abandon()
        raise


def pull_newest(storage: Storage, store: CheckpointStore) -> Checkpoint | None:
    """Copy the newest checkpoint that verifies; return None if the storage has none.

    Raises:
        OSError: The storage could not be reached.
    """
    for name in reversed(stored_names(storage)):
        try:
            return pull(name, storage, store)
        except CorruptError:
            continue  # it stays where it is; the one before may be sound
    return None


def pull_history(name: str, storage: Storage, *, size_bytes: int) -> bytes | None:
    """Return the metric history that came with a checkpoint; None if none did.

    Args:
        name: Of the checkpoint.
        storage: Where it is.
        size_bytes: Of the history, as the checkpoint's manifest has it.

    Raises:
        CorruptError: It is not what was written.
        OSError: The storage could not be reached.
    """
    for file in storage.files(name):
        if (found := _HISTORY.fullmatch(file)) is None:
            continue
        try:
            content = gzip.decompress(b"".join(storage.read(name, file)))
        except (OSError, EOFError, zlib.error) as error:
            raise CorruptError(f"{name}: {file} cannot be decompressed: {error}") from error
        if len(content) != size_bytes or _bare_digest(content) != found[1]:
            raise CorruptError(f"{name}: {file} holds another history than was written")
        return content
    return None


def stored_names(storage: Storage) -> list[str]:
    """Return the checkpoints in a storage, oldest first."""
    places = [place for folder in storage.folders() if (place := CheckpointName.parse(folder)) is not None]
    return [str(place) for place in sorted(places)]


def _check_arrived(name: str, expected: FileEntry, written: FileEntry) -> None:
    if written != expected:
        raise CorruptError(
            f"{name}: {expected.name} came as {written.bytes} bytes with digest {written.digest}, "
            f"not {expected.bytes} with {expected.digest}"
        )


def _files(
    checkpoint: Checkpoint, manifest_text: bytes, history: Path | None, pace: Pace
) -> Iterator[tuple[str, Iterator[bytes]]]:
    for entry in checkpoint.manifest.files:
        yield entry.name, pace(_verified_parts(checkpoint.path, entry))
    size_bytes = checkpoint.manifest.history_bytes
    if history is not None and 0 < size_bytes <= HISTORY_BYTES_MAX:
        with os.fdopen(open_regular(history), "rb") as file:
            rows = file.read(size_bytes)
        if len(rows) == size_bytes:
            compressed = gzip.compress(rows, mtime=0)
            yield f"history-{_bare_digest(rows)}.jsonl.gz", pace(_parts(compressed))
    yield MANIFEST_NAME, iter([manifest_text])


def _parts(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), READ_BYTES):
        yield data[at : at + READ_BYTES]


def _bare_digest(data: bytes) -> str:
    return digest_of_bytes(data).rpartition(":")[2]


def _verified_parts(folder: Path, entry: FileEntry) -> Iterator[bytes]:
    hasher = Hasher()
    with os.fdopen(open_regular(folder / entry.name), "rb", buffering=0) as file:
        while part := file.read(READ_BYTES):
            hasher.update(part)
            yield part
    if (hasher.bytes, hasher.digest()) != (entry.bytes, entry.digest):
        raise CorruptError(f"{folder.name}: {entry.name} has digest {hasher.digest()}, not {entry.digest}")
