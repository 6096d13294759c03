"""A checkpoint in the making: a folder beside its final place that one rename makes a checkpoint.

The order is what makes it safe. Every file is synced before the manifest is written, the manifest before the
folder, the folder before the rename, and the parent after it. So a crash leaves either a staging folder, which
the next writer sweeps, or a whole checkpoint.
"""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint import manifest as manifests
from trainerd.checkpoint.digest import Digest
from trainerd.checkpoint.manifest import FileEntry, Manifest
from trainerd.checkpoint.names import STAGING_PREFIX, checkpoint_name
from trainerd.checkpoint.verify import verify_files
from trainerd.contract.durable import sync_directory, translated_space_errors, write_all
from trainerd.contract.failpoints import declare
from trainerd.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

DATA_WRITTEN = declare(
    "checkpoint.data.written", "a staging folder with part of the data; swept by the next writer"
)
DATA_SYNCED = declare("checkpoint.data.synced", "a staging folder without a manifest; swept likewise")
MANIFEST_SYNCED = declare("checkpoint.manifest.synced", "a complete staging folder; swept likewise")
STAGED = declare("checkpoint.staged", "a complete and durable staging folder; swept likewise")
RENAMED = declare("checkpoint.renamed", "the new checkpoint, or after a power cut perhaps the staging folder")
COMMITTED = declare(
    "checkpoint.committed", "the new checkpoint; what retention no longer keeps is still there"
)

_serial: Final = itertools.count()


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint."""

    path: Path
    step: int
    ordinal: int
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def epoch(self) -> int:
        return self.manifest.epoch

    @property
    def created_wall_s(self) -> float:
        return self.manifest.created_wall_s

    @property
    def scores(self) -> Mapping[str, float]:
        return self.manifest.scores


class Staging:
    """Made by `CheckpointStore.begin`; ends by `commit` or `abandon`."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self._step = step
        self._entries: list[FileEntry] = []
        self.path = folder / f"{STAGING_PREFIX}{checkpoint_name(step)}-{os.getpid()}-{next(_serial)}"
        with translated_space_errors(self.path):
            self.path.mkdir()

    def write(self, name: str, chunks: Iterable[bytes | bytearray | memoryview]) -> FileEntry:
        """Write a file and make it durable, digesting it on the way.

        Raises:
            SpaceError: The disk is full or read-only.
            OSError: Anything else the filesystem says. The file is lost then: abandon the staging folder, for
                an fsync that failed once may report success the next time for data that is gone.
        """
        path = self.path / name
        digest, size = Digest(), 0
        with translated_space_errors(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                for chunk in chunks:
                    write_all(descriptor, memoryview(chunk))
                    digest.update(chunk)
                    size += memoryview(chunk).nbytes
                DATA_WRITTEN.hit()
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        DATA_SYNCED.hit()
        entry = FileEntry(name, size, digest.text())
        self.add(entry)
        return entry

    def add(self, entry: FileEntry) -> None:
        """Take in a file that somebody else has written into `path` and synced."""
        self._entries.append(entry)

    def commit(self, manifest: Manifest) -> Checkpoint:
        """Make it a checkpoint. When this returns it is durable, and what was read back is what was written.

        Raises:
            SpaceError: The disk is full or read-only; there is no new checkpoint.
            CorruptError: What was read back is not what was written; the folder is left for quarantine.
        """
        manifest = replace(manifest, files=tuple(sorted(self._entries, key=lambda entry: entry.name)))
        with translated_space_errors(self.path):
            self._write_manifest(manifest)
            sync_directory(self.path)
            STAGED.hit()
            final, ordinal = self._free_place()
            # One rename within one folder: it cannot cross filesystems, and there is no moment in between.
            self.path.rename(final)
            RENAMED.hit()
            sync_directory(self._folder)
        verify_files(final, manifest)
        COMMITTED.hit()
        return Checkpoint(final, self._step, ordinal, manifest)

    def abandon(self) -> None:
        """Give it up. Does nothing after a commit."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _write_manifest(self, manifest: Manifest) -> None:
        path = self.path / manifests.MANIFEST_NAME
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(descriptor, manifests.encode(manifest))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        MANIFEST_SYNCED.hit()

    def _free_place(self) -> tuple[Path, int]:
        for ordinal in itertools.count():
            path = self._folder / checkpoint_name(self._step, ordinal)
            if not os.path.lexists(path):
                return path, ordinal
        raise InternalError("unreachable")
