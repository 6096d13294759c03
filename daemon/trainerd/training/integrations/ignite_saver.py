"""`StoreSaver`: Ignite's `Checkpoint` and `ModelCheckpoint` write files that are durable and have digests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ignite.distributed as idist
import torch
from ignite.handlers import DiskSaver

from trainerd.checkpoint.checkpoint_names import MANIFEST_NAME
from trainerd.errors import UserError
from trainerd.training.integrations.digested_files import (
    bring_back,
    check_digest,
    remove_digested,
    write_digested,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.checkpoint.storage import Storage

_FILE_NAME: Final = "checkpoint.pt"


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

    Raises:
        UserError: A name leads out of `dirname`, or the URL of the storage cannot be used.
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
        record = write_digested(path, content)
        if self._storage is not None:
            self._storage.remove(filename)
            self._storage.put(filename, [(_FILE_NAME, [content]), (MANIFEST_NAME, [record])])

    def remove(self, filename: str) -> None:
        """Remove a checkpoint, on the rank that writes. One that is gone already is fine.

        Args:
            filename: Its name.

        Raises:
            UserError: The name leads out of the folder.
        """
        if self.save_on_rank != idist.get_rank():
            return
        # It may be gone: a resumed run removes again what it removed before it died.
        remove_digested(self._path(filename))
        if self._storage is not None:
            self._storage.remove(filename)

    def verified(self, filename: str | Path) -> Path:
        """Return the path of a checkpoint once it is compared with its digest.

        One that is missing is brought back from the storage.

        Args:
            filename: Its name, or the path that ``last_checkpoint`` returns.

        Raises:
            CorruptError: The file is not what was written, or nothing says what was.
            UserError: The name leads out of the folder.
            FileNotFoundError: There is no such file.
        """
        name = Path(filename).name
        path = self._path(name)
        if not path.exists() and self._storage is not None:
            self._bring_back(name, path)
        check_digest(path)
        return path

    def _bring_back(self, name: str, path: Path) -> None:
        content = b"".join(self._storage.read(name, _FILE_NAME))
        record = b"".join(self._storage.read(name, MANIFEST_NAME))
        bring_back(path, content, record)

    def _path(self, filename: str) -> Path:
        path: Path = self.dirname / filename
        if path.resolve().parent != self.dirname.resolve():
            raise UserError(f"the checkpoint name {filename!r:.80} leads out of {self.dirname}")
        return path


def _storage_at(place: Storage | str | None) -> Storage | None:
    if not isinstance(place, str):
        return place
    from trainerd.checkpoint.fsspec_storage import FsspecStorage

    return FsspecStorage(place)
