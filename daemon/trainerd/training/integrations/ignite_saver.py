"""`StoreSaver`: Ignite's `Checkpoint` and `ModelCheckpoint` write files that are durable and have digests."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ignite.distributed as idist
import torch
from ignite.handlers import DiskSaver

from trainerd.checkpoint.checkpoint_names import MANIFEST_NAME
from trainerd.checkpoint.digest import digest_of_bytes, digest_of_file
from trainerd.contract.durable import make_directory, read_file, sync_directory, write_file
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.checkpoint.storage import Storage

DIGESTS_SUFFIX: Final = ".digests"
_FILE_NAME: Final = "checkpoint.pt"
_MODE: Final = 0o644


class StoreSaver(DiskSaver):
    """A save handler in the place of Ignite's `DiskSaver`, with the same arguments.

    Each file is written to a temporary one, made durable and renamed, so that a crash leaves the former file
    or the new one. Its digest lies beside the folder, in ``<dirname>.digests``; `verified` reads a file and
    checks it.

    Args:
        dirname: Folder of the files.
        atomic: Whether to write a temporary file first. If not, what fails half-way is left where it is.
        create_dir: Whether to make the folder.
        require_empty: Whether files that end in ``.pt`` must not be there yet.
        save_on_rank: The rank that writes.
        storage: Another place, which gets each file as a folder of its own, and from which it is removed with
            the file: a `Storage`, or a URL that fsspec knows.
        kwargs: For `torch.save`.
    """

    def __init__(
        self,
        dirname: str | Path,
        atomic: bool = True,
        create_dir: bool = True,
        require_empty: bool = True,
        save_on_rank: int = 0,
        *,
        storage: Storage | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dirname,
            atomic=atomic,
            create_dir=create_dir,
            require_empty=require_empty,
            save_on_rank=save_on_rank,
            **kwargs,
        )
        self._digests = self.dirname.parent / f"{self.dirname.name}{DIGESTS_SUFFIX}"
        self._storage: Any = _storage_at(storage)

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Any = None) -> None:
        """Write a checkpoint, on the rank that does that."""
        del metadata
        if self.save_on_rank != idist.get_rank():
            return
        path = self._path(filename)
        if self._atomic:
            buffer = io.BytesIO()
            torch.save(checkpoint, buffer, **self.kwargs)
            content = buffer.getvalue()
        else:
            torch.save(checkpoint, path, **self.kwargs)
            content = path.read_bytes()
        record = json.dumps({"bytes": len(content), "digest": digest_of_bytes(content)}).encode()
        make_directory(self._digests)
        # The record of the former file goes first: a crash in between leaves a file without one, and never a
        # good file with the digest of another.
        self._record(filename).unlink(missing_ok=True)
        sync_directory(self._digests)
        write_file(path, content, mode=_MODE)
        write_file(self._record(filename), record)
        if self._storage is not None:
            self._storage.remove(filename)
            self._storage.put(filename, [(_FILE_NAME, [content]), (MANIFEST_NAME, [record])])

    def remove(self, filename: str) -> None:
        """Remove a checkpoint, on the rank that writes. One that is gone already is fine."""
        if self.save_on_rank != idist.get_rank():
            return
        # It may be gone: a resumed run removes again what it removed before it died.
        self._path(filename).unlink(missing_ok=True)
        self._record(filename).unlink(missing_ok=True)
        if self._storage is not None:
            self._storage.remove(filename)

    def verified(self, filename: str | Path) -> Path:
        """Return the path of a checkpoint once it is compared with its digest.

        One that is missing is brought back from the storage.

        Args:
            filename: Its name, or the path that ``last_checkpoint`` returns.

        Raises:
            CorruptError: The file is not what was written, or nothing says what was.
            FileNotFoundError: There is no such file.
        """
        name = Path(filename).name
        path = self._path(name)
        if not path.exists() and self._storage is not None:
            self._bring_back(name, path)
        size, digest = digest_of_file(path)
        try:
            record = json.loads(read_file(self._record(name)))
        except (FileNotFoundError, ValueError) as error:
            raise CorruptError(f"{path}: there is no readable digest of it in {self._digests}") from error
        if record != {"bytes": size, "digest": digest}:
            raise CorruptError(f"{path} is not what was written: {size} bytes with digest {digest}")
        return path

    def _bring_back(self, name: str, path: Path) -> None:
        content = b"".join(self._storage.read(name, _FILE_NAME))
        record = b"".join(self._storage.read(name, MANIFEST_NAME))
        make_directory(self._digests)
        write_file(self._record(name), record)
        write_file(path, content, mode=_MODE)

    def _path(self, filename: str) -> Path:
        path: Path = self.dirname / filename
        if path.resolve().parent != self.dirname.resolve():
            raise UserError(f"the checkpoint name {filename!r:.80} leads out of {self.dirname}")
        return path

    def _record(self, filename: str) -> Path:
        record: Path = self._digests / f"{filename}.json"
        return record


def _storage_at(place: Storage | str | None) -> Storage | None:
    if not isinstance(place, str):
        return place
    from trainerd.checkpoint.fsspec_storage import FsspecStorage

    return FsspecStorage(place)
