"""A checkpoint in the making: a folder beside its final place, filled and then renamed once.

Invariants:
    The rename is within the checkpoints folder, so it cannot cross filesystems and is one atomic act. It is
    out of the folder of this attempt, which a later attempt renames when it takes over: see `fence`.
    Nothing is renamed before every file in it, its manifest and its own names were synced.
    After a write, sync or close that failed, the staging is dead: Linux may have marked the pages clean, and
    a second sync would report success for data that never reached the disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import (
    MANIFEST_NAME,
    CheckpointName,
    is_plain_file_name,
    staging_name,
)
from trainerd.checkpoint.committed import Checkpoint
from trainerd.checkpoint.digest import Hasher
from trainerd.checkpoint.fence import WriterFolder
from trainerd.checkpoint.manifest import FileEntry, Manifest, encode_manifest
from trainerd.contract.durable import sync_directory, translated_space_errors, write_all
from trainerd.contract.failpoints import declare
from trainerd.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["Staging", "free_place"]

DATA_WRITTEN = declare(
    "checkpoint.data.written", "a staging folder, its last file not synced; swept at the next start"
)
DATA_SYNCED = declare(
    "checkpoint.data.synced", "a staging folder without a manifest; swept at the next start"
)
MANIFEST_SYNCED = declare("checkpoint.manifest.synced", "a complete staging folder; swept at the next start")
STAGED = declare("checkpoint.staged", "a complete and durable staging folder; swept at the next start")
RENAMED = declare("checkpoint.renamed", "the new checkpoint, or after a power cut perhaps its staging folder")
COMMITTED = declare("checkpoint.committed", "the new checkpoint, durable; nothing is pruned yet")

GATHER_BYTES: Final = 1024 * 1024
"""Small pieces are written together, up to this many bytes a call."""


def free_place(directory: Path, step: int) -> CheckpointName:
    """Return the name of the next checkpoint of a step: none in the folder has it."""
    place = CheckpointName(step)
    while os.path.lexists(directory / str(place)):
        place = CheckpointName(step, place.ordinal + 1)
    return place


class Staging:
    """Staging folder of one checkpoint: begun and committed by a `CheckpointStore`, or given up by `abandon`.

    Args:
        path: The folder, which exists. Several processes may put files into it; each has a `Staging` of its
            own.
        step: Step of the checkpoint.

    Attributes:
        directory: The checkpoints folder.
        writer: Folder of the attempt that it is in, None if it lies in the checkpoints folder itself.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step
        self.writer = WriterFolder.of_staging(path)
        self.directory = path.parent if self.writer is None else path.parent.parent
        self._entries: dict[str, FileEntry] = {}
        self._is_dead = False

    @classmethod
    def begin(cls, directory: Path, step: int) -> Staging:
        """Make a new staging folder.

        Args:
            directory: The folder of this attempt, or the checkpoints folder.
            step: Step of the checkpoint.

        Raises:
            SpaceError: The disk is full or read-only.
            FencedError: Another attempt has taken over.
        """
        staging = cls(directory / staging_name(CheckpointName(step)), step)
        with staging.fence_noticed(), translated_space_errors(staging.path):
            staging.path.mkdir()
        return staging

    def fence_noticed(self) -> AbstractContextManager[None]:
        """Raise `FencedError` for an error of the filesystem that comes of another attempt taking over."""
        return self.writer.noticed() if self.writer is not None else contextlib.nullcontext()

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """What was written or announced so far."""
        return tuple(self._entries.values())

    def write(self, name: str, chunks: Iterable[bytes | bytearray | memoryview]) -> FileEntry:
        """Write one file durably, hashing what passes through.

        Raises:
            SpaceError: The disk is full or read-only; abandon this staging.
            FencedError: Another attempt has taken over.
            OSError: Anything else that the filesystem says; likewise.
        """
        self._check_file_name(name)
        self._check_alive()
        self._is_dead = True  # until all has gone well
        hasher = Hasher()
        with self.fence_noticed(), translated_space_errors(self.path / name):
            descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with _closing(descriptor):
                _write_gathered(descriptor, chunks, hasher)
                DATA_WRITTEN.hit()
                os.fsync(descriptor)
                # So that the read-back asks the disk and not the memory that the disk was written from.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            DATA_SYNCED.hit()
        self._is_dead = False
        return self.add(FileEntry(name, hasher.bytes, hasher.digest()))

    def add(self, entry: FileEntry) -> FileEntry:
        """Announce a file that another thread or process wrote and synced into `path`."""
        self._check_file_name(entry.name)
        self._check_alive()
        self._entries[entry.name] = entry
        return entry

    def publish(self, manifest: Manifest) -> Checkpoint:
        """Give the folder the name of a checkpoint, durably. Part of `CheckpointStore.commit`.

        Args:
            manifest: Manifest of the checkpoint; its `files` are filled in here.

        Raises:
            SpaceError: The disk is full or read-only; abandon this staging.
            FencedError: Another attempt has taken over.
            OSError: Anything else that the filesystem says; abandon this staging.
        """
        self._check_alive()
        if manifest.step != self.step:
            raise InternalError(f"a manifest of step {manifest.step} for a checkpoint of step {self.step}")
        self._is_dead = True  # it is used up, whatever happens now
        files = tuple([self._entries[name] for name in sorted(self._entries)])
        manifest = dataclasses.replace(manifest, files=files)
        with self.fence_noticed(), translated_space_errors(self.path):
            self._write_manifest(encode_manifest(manifest))
            sync_directory(self.path)
            STAGED.hit()
            checkpoint = self._rename(manifest)
        COMMITTED.hit()
        return checkpoint

    def abandon(self) -> None:
        """Give up: remove what was written. After `publish` it does nothing."""
        self._is_dead = True
        shutil.rmtree(self.path, ignore_errors=True)

    def _write_manifest(self, text: bytes) -> None:
        descriptor = os.open(
            self.path / MANIFEST_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
        )
        with _closing(descriptor):
            write_all(descriptor, text)
            os.fsync(descriptor)
        MANIFEST_SYNCED.hit()

    def _rename(self, manifest: Manifest) -> Checkpoint:
        place = free_place(self.directory, self.step)
        final = self.directory / str(place)
        self.path.rename(final)
        try:
            RENAMED.hit()
            # Not the folder of the attempt too: what may come back in it is swept, whole or not.
            sync_directory(self.directory)
        except OSError:
            # Visible and perhaps not durable: nothing may build on it.
            with contextlib.suppress(OSError):
                final.rename(self.path)
            raise
        return Checkpoint(final.name, final, place.step, place.ordinal, manifest)

    def _check_alive(self) -> None:
        if self._is_dead:
            raise InternalError(f"{self.path} is used up: a write failed, or it was committed or abandoned")

    def _check_file_name(self, name: str) -> None:
        if not is_plain_file_name(name) or name in self._entries:
            raise InternalError(f"{name!r} cannot be a new file of a checkpoint")


class _closing:  # noqa: N801 - a context manager, used like contextlib.closing
    """Closes a descriptor; a close that fails is an error, unless an earlier error is on its way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            os.close(self._descriptor)
        except OSError:
            if kind is None:
                raise


def _write_gathered(
    descriptor: int, chunks: Iterable[bytes | bytearray | memoryview], hasher: Hasher
) -> None:
    gathered = bytearray()
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        hasher.update(view)
        if len(view) >= GATHER_BYTES:
            write_all(descriptor, memoryview(gathered))
            gathered = bytearray()
            write_all(descriptor, view)
            continue
        gathered += view
        if len(gathered) >= GATHER_BYTES:
            write_all(descriptor, memoryview(gathered))
            gathered = bytearray()
    write_all(descriptor, memoryview(gathered))
