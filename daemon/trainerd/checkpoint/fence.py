"""The fence: at most one attempt can write checkpoints, also where locks do not reach.

A lock of the kernel says nothing to another machine on a shared folder, nor across some mounts. So each
attempt makes a folder of its own in the checkpoints folder, and stages every checkpoint inside it. The next
attempt renames the folders of all attempts before it away, and only then looks which checkpoints there are.
A former attempt that still runs, or that is resumed by SIGCONT after hours, finds its next mkdir, open or
rename failing, because the folder no longer has the name that this attempt knows.

Invariants:
    A checkpoint is published by one rename out of the attempt's own folder. If that came before the next
    attempt renamed the folder, the next attempt sees the checkpoint; if it came later, it fails. There is no
    moment between a question and an act: the act is the question.
    Of two attempts that begin at the same moment, the one whose folder is higher goes on.
    No name is used twice, also not in a run that begins again under the same path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import WriterName, fenced_name
from trainerd.contract.durable import sync_directory, translated_space_errors
from trainerd.contract.failpoints import declare
from trainerd.errors import FencedError, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["WriterFolder"]

TAKEN = declare(
    "fence.taken",
    "an empty folder of this attempt beside the folder of the attempt before; the next start renames both",
)
FENCED = declare(
    "fence.renamed", "former attempts' folders under names that are swept at the next start, or some of them"
)

_TRIES_MAX: Final = 100
_OWNER_NAME: Final = "owner"
_OWNER_BYTES_MAX: Final = 200
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


class WriterFolder:
    """Folder in which one attempt stages its checkpoints, and its right to publish them.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def take(cls, directory: Path) -> WriterFolder:
        """Make a folder that is higher than any other, and rename all others away.

        Args:
            directory: The checkpoints folder.

        Raises:
            SpaceError: The disk is full or read-only.
            TryAgainError: Other attempts begin all the time.
        """
        for _ in range(_TRIES_MAX):
            name = WriterName.new(1 + max([each.number for each in _writers(directory)], default=0))
            own = cls(directory / str(name))
            with translated_space_errors(own.path):
                own.path.mkdir()
            own._say_who()
            TAKEN.hit()
            others = [each for each in _writers(directory) if each != name]
            if all(each < name for each in others):
                for each in others:
                    with contextlib.suppress(FileNotFoundError):  # renamed by another attempt that began
                        (directory / str(each)).rename(directory / fenced_name(each))
                if others:  # or a server that crashes could give a former attempt its folder back
                    sync_directory(directory)
                FENCED.hit()
                return own
        raise TryAgainError(f"{directory}: {_TRIES_MAX} other attempts began at the same moment")

    @classmethod
    def of_staging(cls, staging: Path) -> WriterFolder | None:
        """Return the folder that a staging folder is in, None if it is in none."""
        return cls(staging.parent) if WriterName.parse(staging.parent.name) is not None else None

    @property
    def is_held(self) -> bool:
        """Whether no other attempt has taken over. Unknown, as on a disk that fails, counts as held."""
        try:
            self.path.stat()
        except OSError as error:
            return error.errno not in _GONE
        return True

    def check(self) -> None:
        """Raise if another attempt has taken over.

        Raises:
            FencedError: It has; the message says which process.
        """
        if not self.is_held:
            raise FencedError(
                f"another attempt has taken over this run{self._by()}: what was trained here since the "
                "last checkpoint is not saved",
                hint="two processes train one run, perhaps on two machines: leave it to one of them, "
                "or give the other a run of its own",
            )

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Raise `FencedError` in place of an error of the filesystem that comes of another attempt."""
        try:
            yield
        except OSError as error:
            try:
                self.check()
            except FencedError as fenced:
                raise fenced from error
            raise

    def _by(self) -> str:
        # For people only: it may be gone, or in the making.
        with contextlib.suppress(OSError, ValueError):
            newest = max(_writers(self.path.parent))
            with (self.path.parent / str(newest) / _OWNER_NAME).open("rb") as file:
                return f" ({file.read(_OWNER_BYTES_MAX).decode(errors='replace').strip()})"
        return ""

    def _say_who(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / _OWNER_NAME).write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")


def _writers(directory: Path) -> list[WriterName]:
    return [name for path in directory.iterdir() if (name := WriterName.parse(path.name)) is not None]
