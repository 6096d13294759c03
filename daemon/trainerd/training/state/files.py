"""Files of a folder as state of the run: adapters, tokenizers, folders that a framework writes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.counted import counted
from trainerd.contract.durable import make_directory, write_file
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

FILES_MAX: Final = 10_000
"""More files than that in one folder are a data set, and no state."""
_READS_MAX: Final = 5


class Files:
    """The files below a folder, tracked like any other object: ``session.track(tokenizer=Files(folder))``.

    Their bytes are in each checkpoint, under its digests. A resume writes them into the folder, each file
    atomically, and removes files that are there and were not in the checkpoint.

    Args:
        folder: The folder. It may be missing: then there are no files.
        pattern: Which files below it, as `pathlib.Path.rglob` takes it.
        write: Called before each save, to write the files that belong to it.
    """

    def __init__(
        self, folder: str | Path, *, pattern: str = "*", write: Callable[[Path], Any] | None = None
    ) -> None:
        self._folder = Path(folder)
        self._pattern = pattern
        self._write = write

    def state_dict(self) -> dict[str, Any]:
        """Return the contents by path below the folder.

        Raises:
            UserError: There are too many files, or one of them is being written.
        """
        if self._write is not None:
            self._write(self._folder)
        found = self._found()
        if len(found) > FILES_MAX:
            files = counted(len(found), "file")
            raise UserError(f"{self._folder} has {files}: more than {FILES_MAX} are no state")
        contents = {name: _content(path) for name, path in found.items()}
        return {name: as_tensor(content) for name, content in contents.items() if content is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Write the files back.

        Args:
            state: Contents by path within the folder, as `state_dict` returns it.

        Raises:
            CorruptError: A path leads out of the folder.
            UserError: There is a folder with other files in the place of a file.
            SpaceError: The disk is full or read-only.
        """
        for name in state:
            inner = PurePosixPath(name)
            if inner.is_absolute() or ".." in inner.parts or not inner.parts:
                raise CorruptError(f"a file of the checkpoint would be outside of its folder: {name!r:.80}")
        for name, path in self._found().items():
            if name not in state:
                path.unlink()
        for name, content in state.items():
            path = self._folder / name
            make_directory(path.parent)
            _remove_empty_folder(path)
            write_file(path, content.numpy().tobytes())

    def _found(self) -> dict[str, Path]:
        paths = sorted(path for path in self._folder.rglob(self._pattern) if path.is_file())
        return {path.relative_to(self._folder).as_posix(): path for path in paths}


def _content(path: Path) -> bytes | None:
    """Return the content of a file as it is at one moment; None if the file has gone since it was found.

    Raises:
        UserError: It changes whenever it is read.
    """
    for _ in range(_READS_MAX):
        try:
            before = path.stat()
            content = path.read_bytes()
            after = path.stat()
        except FileNotFoundError:
            return None
        if (before.st_mtime_ns, before.st_ino, before.st_size) == (
            after.st_mtime_ns,
            after.st_ino,
            len(content),
        ):
            return content
    raise UserError(
        f"{path} is written while it is saved: {_READS_MAX} times it was another file after it was read",
        hint="let Files(write=…) write what belongs to a checkpoint, or leave the file out with pattern=",
    )


def _remove_empty_folder(path: Path) -> None:
    """Remove a folder of folders that stands where a file is to be written."""
    if path.is_symlink() or not path.is_dir():
        return
    try:
        for folder in sorted(path.rglob("*"), reverse=True):
            folder.rmdir()
        path.rmdir()
    except OSError as error:
        raise UserError(
            f"{path} is a folder with other files, and was a file when the checkpoint was made",
            hint="move the folder away",
        ) from error


def as_tensor(content: bytes) -> torch.Tensor:
    """Return the content of a file as a tensor, the form in which a checkpoint holds bytes."""
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(0, dtype=torch.uint8)
    )
