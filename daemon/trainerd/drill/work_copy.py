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
LINK_BYTES_MAX: Final = 64 << 20
"""More than this behind a link that leads out of the folder is not copied, in bytes."""
LINK_FILES_MAX: Final = 1000

LEFT_OUT: Final = frozenset(
    {".trainerd", ".git", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
"""Folders that no run of a job needs."""

_FICLONE: Final = 0x40049409
"""The ioctl by which a filesystem shares the blocks of two files until one is written."""


def copy_work(source: Path, target: Path, *, linked: Collection[Path] = ()) -> None:
    """Copy a working folder.

    Virtual environments, and what is named, are linked and not copied. What lies beside the folder is linked
    too, so that ``../data`` is found. Links within the folder lead to the copy; behind those that lead out of
    it, little is copied, and much is refused.

    Args:
        source: The job's working folder.
        target: The copy; made here.
        linked: Absolute paths within `source` that are only read.

    Raises:
        UserError: It is too large, cannot be copied, or has a link that leads to much outside of it.
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
        self._within: list[Path] = []

    def into(self, source: Path, target: Path) -> None:
        target.mkdir()
        with os.scandir(source) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                self._copy(entry, Path(entry.path), target / entry.name)

    def _copy(self, entry: os.DirEntry[str], source: Path, target: Path) -> None:
        if source in self._linked:
            target.symlink_to(source)
        elif entry.is_symlink():
            self._copy_link(source, target)
        elif entry.is_dir() and (source / "pyvenv.cfg").exists():
            target.symlink_to(source)
        elif entry.is_dir():
            if entry.name not in LEFT_OUT and not _holds(source, self._avoided):
                self.into(source, target)
        elif stat.S_ISREG(entry.stat().st_mode):
            self._copy_file(source, target)

    def _copy_file(self, source: Path, target: Path) -> None:
        size = source.stat().st_size
        self._count(size if not _is_cloned(source, target) else 0)
        if not target.exists():
            shutil.copyfile(source, target)
        shutil.copystat(source, target)

    def _copy_link(self, source: Path, target: Path) -> None:
        """Copy a link, so that what is written through it is written in the copy.

        Raises:
            UserError: It leads out of the folder, to more than is copied.
        """
        real = source.resolve()
        if real.is_relative_to(self._root.resolve()):
            # Relative, so that it leads to the copy.
            target.symlink_to(os.path.relpath(real, source.parent.resolve()))
        elif (real / "pyvenv.cfg").exists():
            target.symlink_to(real)
        elif not real.is_dir():
            if real.is_file() and real.stat().st_size <= LINK_BYTES_MAX:
                self._copy_file(real, target)
            elif real.is_file():
                raise _too_much_behind(source, real, self._root)
            else:
                target.symlink_to(real)  # a device, or nothing
        elif real in self._within or self._root.resolve().is_relative_to(real) or not _is_small(real):
            raise _too_much_behind(source, real, self._root)
        else:
            self._within.append(real)
            self.into(real, target)
            self._within.pop()

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


def _too_much_behind(link: Path, real: Path, root: Path) -> UserError:
    return UserError(
        f"the link {link} leads out of the working folder, to {real}, which is too much to copy: a job "
        "that is drilled would write there",
        hint=f"--link {link.relative_to(root) if link.is_relative_to(root) else link}, if it is only read, "
        "or --in-place: then the job may write there, as always",
    )


def _is_small(folder: Path) -> bool:
    """Tell whether a folder has little in it, by its files; links in it are followed when it is copied."""
    size = count = 0
    for parent, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        size += sum(Path(parent, name).lstat().st_size for name in files)
        if count > LINK_FILES_MAX or size > LINK_BYTES_MAX:
            return False
    return True


def _is_cloned(source: Path, target: Path) -> bool:
    """Copy a file by sharing its blocks, where the filesystem can do that."""
    try:
        with source.open("rb") as one, target.open("wb") as other:
            fcntl.ioctl(other, _FICLONE, one.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True
