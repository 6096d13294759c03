"""A copy of the job's working folder for each run, so that a drill changes nothing in the real one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection

BYTES_MAX: Final = 1 << 30
"""More than this is not copied, in bytes."""
FILES_MAX: Final = 50_000

LEFT_OUT: Final = frozenset(
    {".trainerd", ".git", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
"""Folders that no run of a job needs."""

_FICLONE: Final = 0x40049409
"""The ioctl by which a filesystem shares the blocks of two files until one is written."""


def copy_work(source: Path, target: Path, *, linked: Collection[Path] = ()) -> None:
    """Copy a working folder.

    Virtual environments, and what is named, are linked and not copied. What lies beside the folder is linked
    too, so that ``../data`` is found.

    Args:
        source: The job's working folder.
        target: The copy; made here.
        linked: Absolute paths within `source` that are only read.

    Raises:
        UserError: It is too large, or cannot be copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        for beside in source.parent.iterdir():
            if beside != source and not _holds(beside, target):
                with contextlib.suppress(FileExistsError):
                    (target.parent / beside.name).symlink_to(beside)
    try:
        _Copying(source, frozenset(linked), avoided=target).into(source, target)
    except OSError as error:
        raise UserError(
            f"cannot copy the working folder {source}: {error.strerror}: {error.filename}",
            hint="name what the job only reads with --link, or use --in-place",
        ) from error


def _holds(folder: Path, path: Path) -> bool:
    return path.is_relative_to(folder)


class _Copying:
    def __init__(self, root: Path, linked: frozenset[Path], *, avoided: Path) -> None:
        self._root = root
        self._linked = linked
        self._avoided = avoided
        self._bytes = self._files = 0

    def into(self, source: Path, target: Path) -> None:
        target.mkdir()
        with os.scandir(source) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                self._copy(entry, Path(entry.path), target / entry.name)

    def _copy(self, entry: os.DirEntry[str], source: Path, target: Path) -> None:
        if entry.is_symlink():
            link = source.readlink()
            is_inside = not link.is_absolute() and (source.parent / link).resolve().is_relative_to(self._root)
            target.symlink_to(link if is_inside else source.resolve())
        elif source in self._linked or (entry.is_dir() and (source / "pyvenv.cfg").exists()):
            target.symlink_to(source)
        elif entry.is_dir():
            if entry.name not in LEFT_OUT and not _holds(source, self._avoided):
                self.into(source, target)
        elif stat.S_ISREG(entry.stat().st_mode):
            self._count(entry.stat().st_size if not _is_cloned(source, target) else 0)
            if not target.exists():
                shutil.copyfile(source, target)
            shutil.copystat(source, target)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._files += 1
        if self._bytes > BYTES_MAX or self._files > FILES_MAX:
            raise UserError(
                f"the working folder {self._root} has more than {BYTES_MAX >> 30} GiB or {FILES_MAX} files: "
                "it is not copied",
                hint="name the folders that the job only reads with --link DIR, start the drill in a smaller "
                "folder, or use --in-place: then the job may write there, as always",
            )


def _is_cloned(source: Path, target: Path) -> bool:
    """Copy a file by sharing its blocks, where the filesystem can do that."""
    try:
        with source.open("rb") as one, target.open("wb") as other:
            fcntl.ioctl(other, _FICLONE, one.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True
