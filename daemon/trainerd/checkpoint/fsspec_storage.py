"""A storage at any URL that fsspec knows: ``s3://…``, ``gs://…``, ``ssh://…``, ``memory://…``.

Object stores have no rename. There a folder is committed by the arrival of its manifest, which comes last,
and taken back by the removal of its manifest, which goes first. How durable an object is once it was accepted
is the service's promise, not ours.
"""

from __future__ import annotations

import contextlib
import errno
import re
from typing import TYPE_CHECKING, Any

from trainerd.checkpoint.checkpoint_names import MANIFEST_NAME
from trainerd.checkpoint.digest import READ_BYTES
from trainerd.checkpoint.storage import check_folder_name, checked_files
from trainerd.contract.durable import translated_space_errors
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["FsspecStorage", "without_credentials"]


class FsspecStorage:
    """Folders below a URL.

    Args:
        url: Where, with its protocol.
        options: What the filesystem of that protocol takes, such as credentials or an endpoint.

    Raises:
        UserError: fsspec, or its package for this protocol, is not installed, or the protocol is unknown.
    """

    def __init__(self, url: str, **options: Any) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise UserError(
                f"{url}: fsspec is not installed", hint="pip install 'trainerd[storage]'"
            ) from error
        try:
            self._files, root = url_to_fs(url, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url}: {error}") from error
        self._root = root.rstrip("/")

    def folders(self) -> tuple[str, ...]:
        return tuple(sorted(folder for folder, files in self._found().items() if MANIFEST_NAME in files))

    def files(self, folder: str) -> dict[str, int]:
        files = self._found(check_folder_name(folder)).get(folder, {})
        if MANIFEST_NAME not in files:
            raise FileNotFoundError(errno.ENOENT, "no such committed folder", self._path(folder))
        return files

    def read(self, folder: str, name: str) -> Iterator[bytes]:
        if name not in self.files(folder):
            raise FileNotFoundError(errno.ENOENT, "no such file", self._path(folder, name))
        with self._files.open(self._path(folder, name), "rb") as file:
            while data := file.read(READ_BYTES):
                yield data

    def put(self, folder: str, files: Iterable[tuple[str, Iterable[bytes | bytearray | memoryview]]]) -> None:
        found = self._found(check_folder_name(folder)).get(folder, {})
        if MANIFEST_NAME in found:
            raise FileExistsError(errno.EEXIST, "exists", self._path(folder))
        self._files.makedirs(self._path(folder), exist_ok=True)
        try:
            for name in found:  # what an interrupted upload left: its files are not ours
                self._files.rm_file(self._path(folder, name))
            for name, parts in checked_files(files):
                self._write(folder, name, parts)
        except BaseException:
            with contextlib.suppress(Exception):  # without its manifest it does not count; sweep has the rest
                self.remove(folder)
            raise

    def remove(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(check_folder_name(folder), MANIFEST_NAME))
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(self._path(folder), recursive=True)

    def sweep(self) -> tuple[str, ...]:
        leftovers = [folder for folder, files in self._found().items() if MANIFEST_NAME not in files]
        for folder in leftovers:
            self.remove(folder)
        return tuple(sorted(leftovers))

    def _write(self, folder: str, name: str, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        path = self._path(folder, name)
        with translated_space_errors(path):
            # Taken apart by hand: leaving the with block of an fsspec file would upload what is there even
            # when `parts` has failed.
            file = self._files.open(path, "wb")
            try:
                for part in parts:
                    file.write(part)
            except BaseException:
                with contextlib.suppress(Exception):
                    file.discard() if hasattr(file, "discard") else file.close()
                raise
            file.close()

    def _found(self, folder: str | None = None) -> dict[str, dict[str, int]]:
        """Return the files of every folder, or of one, committed or not."""
        root = self._path(folder) if folder is not None else self._root
        try:
            found = self._files.find(root, maxdepth=1 if folder is not None else 2, detail=True)
        except FileNotFoundError:
            return {}
        folders: dict[str, dict[str, int]] = {}
        for path, details in found.items():
            *_, parent, name = path.split("/")
            if path.removesuffix(f"/{parent}/{name}") == self._root and parent[0] != ".":
                folders.setdefault(parent, {})[name] = details["size"]
        return folders

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))


def without_credentials(url: str) -> str:
    """Return a URL as it may be shown: without the user and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", url, count=1)
