"""A storage on a mounted filesystem, as safe as the store itself: staged, synced, renamed once."""

from __future__ import annotations

import os
import shutil
from itertools import count
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import MANIFEST_NAME
from trainerd.checkpoint.digest import READ_BYTES
from trainerd.checkpoint.storage import check_folder_name, checked_files
from trainerd.contract.durable import make_directory, sync_directory, translated_space_errors, write_all
from trainerd.contract.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["LocalStorage"]

_LEFTOVER_PREFIXES: Final = (".staging-", ".pruned-")
_serial = count()


class LocalStorage:
    """Folders in one folder, which is made if it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self) -> tuple[str, ...]:
        return tuple(
            sorted(path.name for path in self._entries() if path.name[0] != "." and _is_committed(path))
        )

    def files(self, folder: str) -> dict[str, int]:
        return {
            path.name: path.stat().st_size for path in self._committed(folder).iterdir() if path.is_file()
        }

    def read(self, folder: str, name: str) -> Iterator[bytes]:
        with os.fdopen(open_regular(self._committed(folder) / name), "rb", buffering=0) as file:
            while data := file.read(READ_BYTES):
                yield data

    def put(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | bytearray | memoryview]]]) -> None:
        final = self.root / check_folder_name(folder)
        if final.exists():
            raise FileExistsError(f"{final} exists")
        make_directory(self.root)
        staging = self._hidden("staging", folder)
        with translated_space_errors(final):
            staging.mkdir()
            try:
                for name, parts in checked_files(files):
                    _write(staging / name, parts)
                sync_directory(staging)
                staging.rename(final)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            sync_directory(self.root)

    def remove(self, folder: str) -> None:
        doomed = self._hidden("pruned", folder)
        try:
            (self.root / check_folder_name(folder)).rename(doomed)
        except FileNotFoundError:
            return
        sync_directory(self.root)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self) -> tuple[str, ...]:
        leftovers = [path for path in self._entries() if path.name.startswith(_LEFTOVER_PREFIXES)]
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
        return tuple(sorted(path.name for path in leftovers))

    def _entries(self) -> list[Path]:
        try:
            return list(self.root.iterdir())
        except FileNotFoundError:
            return []

    def _committed(self, folder: str) -> Path:
        path = self.root / check_folder_name(folder)
        if not _is_committed(path):
            raise FileNotFoundError(f"no committed folder {path}")
        return path

    def _hidden(self, what: str, folder: str) -> Path:
        return self.root / f".{what}-{folder}-{os.getpid()}-{next(_serial)}"


def _is_committed(path: Path) -> bool:
    return (path / MANIFEST_NAME).is_file()


def _write(path: Path, parts: Iterable[bytes | bytearray | memoryview]) -> None:
    with path.open("xb", buffering=0) as file:
        for part in parts:
            write_all(file.fileno(), memoryview(part))
        os.fsync(file.fileno())
