"""Files of a folder as state of the run: adapters, tokenizers, folders that a framework writes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.durable import make_directory, write_file
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

FILES_MAX: Final = 10_000
"""More files than that in one folder are a data set, and no state."""


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
            UserError: There are too many files.
        """
        if self._write is not None:
            self._write(self._folder)
        found = self._found()
        if len(found) > FILES_MAX:
            raise UserError(f"{self._folder} has {len(found)} files: more than {FILES_MAX} are no state")
        return {name: _as_tensor(path.read_bytes()) for name, path in found.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Write the files back.

        Raises:
            CorruptError: A path leads out of the folder.
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
            write_file(path, content.numpy().tobytes())

    def _found(self) -> dict[str, Path]:
        paths = sorted(path for path in self._folder.rglob(self._pattern) if path.is_file())
        return {path.relative_to(self._folder).as_posix(): path for path in paths}


def _as_tensor(content: bytes) -> torch.Tensor:
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(0, dtype=torch.uint8)
    )
