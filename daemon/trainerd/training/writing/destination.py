"""What the writer asks of the place that its files go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.staging import Staging
    from trainerd.checkpoint.store import Checkpoint


class Part(Protocol):
    """The files of one rank in a checkpoint that is being made.

    Attributes:
        staging: Staging folder that the files are written to.
    """

    staging: Staging

    def commit(self, manifest: Manifest, *, reads_back: bool) -> Checkpoint:
        """Make the files, together with those of the other ranks, a checkpoint."""
        ...

    def abandon(self) -> None:
        """Give up. After a commit it does nothing."""
        ...


class Destination(Protocol):
    """Makes checkpoints of files. Only one is made at a time.

    Attributes:
        rank: Rank whose files are written.
        is_joint: Whether several ranks write the files of one checkpoint.
    """

    rank: int
    is_joint: bool

    def begin(self, manifest: Manifest) -> Part:
        """Begin the next checkpoint."""
        ...

    def commit(self, part: Part, manifest: Manifest, *, is_urgent: bool) -> Checkpoint:
        """Make what was written a checkpoint, and do what follows from it.

        Args:
            part: Begun by `begin`, with all files in it.
            manifest: Manifest of the checkpoint.
            is_urgent: Whether the process is about to end: nothing is read back, so nothing is pruned.
        """
        ...
