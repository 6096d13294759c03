"""Copies of boundaries in memory, which the next attempt goes on from if this process is killed.

They are ordinary checkpoints in a folder on a tmpfs, and survive the process, not the machine. What the next
attempt goes on from is verified and restored, and made a checkpoint on disk behind that.

Invariants:
    Nothing that is decided about checkpoints on disk depends on a copy in memory.
    A copy that an attempt goes on from stays until it is on disk, durably and read back. Until then nothing
    else is written, on disk or in memory.
    Whatever fails here turns the copies off, with a line that says why, and ends no run.
    What is on disk as well is removed from memory when the session closes.
    Of several ranks, rank 0 has the place, and decides. All go on from the same copy, or all from the disk.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.checkpoint.committed import read_checkpoint
from trainerd.checkpoint.memory_place import DEFAULT_BASE, discard_memory, take_place
from trainerd.checkpoint.memory_return import Returned, find_copy, write_back
from trainerd.checkpoint.memory_room import memory_room, why_no_room
from trainerd.checkpoint.removal import remove_renamed, rename_for_removal
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import rehearsal
from trainerd.contract.environment import MEMORY_DIR, MEMORY_SHARE
from trainerd.contract.failpoints import declare
from trainerd.contract.save_reasons import FROM_MEMORY
from trainerd.errors import (
    LockedError,
    NonFiniteLossError,
    RankLostError,
    SpaceError,
    TrainerdError,
    UserError,
)
from trainerd.training.distributed.joint_save import SaveWords
from trainerd.training.engine.joint_copies import JointCopies, JointCopy
from trainerd.training.engine.save_sequence import SoloPart
from trainerd.training.interruption.leaving import say
from trainerd.training.schedule.memory_budget import AGREEMENT_COST_S, COST_SHARE_MAX, MemoryBudget
from trainerd.training.writing.direct_file import AbandonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.distributed.rank_store import Ranks
    from trainerd.training.engine.arriving_rows import ArrivingRows
    from trainerd.training.engine.history import HistoryWriter
    from trainerd.training.engine.silent_history import SilentHistory
    from trainerd.training.settings import Settings
    from trainerd.training.state.restore import StateTree
    from trainerd.training.writing.destination import Part

KEPT = declare(
    "memory.kept", "the newest copy in memory beside the one before; the next start takes the newest"
)


class MemoryTier:
    """The copies in memory of one run. A destination of a `CheckpointWriter`, for what is staged.

    Args:
        settings: Settings of the session.
        disk: Checkpoints of the run.
        rows: Rows of the metric history that are not in it yet.
        history: Metric history that the manifests count on.
        ranks: This rank and the others, None if there are none.
        environ: The process's environment.

    Attributes:
        rank: Rank whose files are written.
        is_joint: Whether several ranks write the files of one copy.
        is_on: Whether copies are kept.
        returned: Name of the checkpoint that was in memory alone when this attempt began, None if none was.
        budget: When the next copy is due.
    """

    def __init__(
        self,
        settings: Settings,
        disk: CheckpointStore,
        rows: ArrivingRows,
        history: HistoryWriter | SilentHistory,
        *,
        ranks: Ranks | None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.rank = 0
        self.is_joint = False
        self.is_on = False
        self.returned: str | None = None
        agreement_cost_s = 0.0 if ranks is None else AGREEMENT_COST_S
        self.budget = MemoryBudget(_share(environ), agreement_cost_s=agreement_cost_s)
        self._settings = settings
        self._disk = disk
        self._rows = rows
        self._history = history
        self._ranks = ranks
        self._joint_copies = JointCopies(ranks) if ranks is not None else None
        self._base = Path(environ.get(MEMORY_DIR) or DEFAULT_BASE)
        self._is_rehearsed = rehearsal.from_environ(environ) is not None
        self._store: CheckpointStore | None = None
        self._lock = contextlib.ExitStack()
        self._held_bytes = 0
        self._found: Returned[StateTree] | None = None
        self._followed: Checkpoint | None = None

    # ------------------------------------------------------------------ at the start, and at the end

    def open(self) -> None:
        """Take the place in memory, if the settings ask for one. Needs the lock of the checkpoints."""
        if self._settings.environment.rank != 0:
            return
        if self._settings.checkpoint.memory == "off" or self._is_rehearsed:
            discard_memory(self._disk.directory)  # of an attempt that kept copies: this one goes on from disk
            return
        if self._settings.environment.node is not None or not (
            self._ranks is None or self._ranks.is_one_machine
        ):
            self.turn_off("the ranks are on several nodes, and a copy survives on one alone")
            return
        try:
            self._store = CheckpointStore(take_place(self._disk.directory, self._base))
            self._lock.enter_context(self._store.lock())
            self._store.take_over()
            self._store.sweep()
            self.is_on = True
        except (UserError, SpaceError, LockedError, OSError) as error:
            self.turn_off(getattr(error, "message", str(error)))

    def find(
        self, read: Callable[[Checkpoint], StateTree], make_room: Callable[[int], None]
    ) -> tuple[Checkpoint, StateTree] | None:
        """Return the newest copy if it is newer than all on disk, as the checkpoint that it is to become.

        `write_back` is due then. Where there is none to go on from, all copies are removed.

        Args:
            read: Reads a copy, and verifies it on the way.
            make_room: Sees to it that so many bytes will fit on disk.

        Raises:
            FencedError: Another attempt has taken over.
        """
        if self._store is None or not self.is_on:
            return None
        try:
            self._found, reasons = find_copy(
                self._disk,
                self._store,
                read,
                history_bytes=self._history.position_bytes,
                make_room=make_room,
                world_size=self._settings.environment.world_size,
            )
            for reason in reasons:
                say(f"trainerd: a copy in memory is not used: {reason}")
            if self._found is None:
                self._remove_all_but(None)
                return None
        except OSError as error:
            self.turn_off(f"the copies cannot be looked at: {error}")
            return None
        self.returned = self._found.checkpoint.name
        return self._found.checkpoint, self._found.content

    @property
    def is_write_back_due(self) -> bool:
        """Whether the run goes on from a copy that is not on disk."""
        return self._found is not None or self._followed is not None

    def copy_of(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Return the copy that a checkpoint was found as, None if it is on disk."""
        found = self._found
        return found.copy if found is not None and found.checkpoint.name == checkpoint.name else None

    def refuse(self, reason: str) -> None:
        """Do not go on from the copy that was found, for a rank cannot: remove it, and say why."""
        found, self._found, self.returned = self._found, None, None
        if found is not None:
            say(f"trainerd: a copy in memory is not used: {found.copy.name}: {reason}")
            with contextlib.suppress(OSError):
                if (renamed := rename_for_removal(found.copy.path)) is not None:
                    remove_renamed(renamed)

    def follow(self, checkpoint: Checkpoint) -> None:
        """Note that this rank goes on from a copy that rank 0 has found, and is to make this checkpoint."""
        self._followed = checkpoint
        self.returned = checkpoint.name

    def write_back(self) -> Checkpoint:
        """Make the copy that the run goes on from a checkpoint on disk; remove all copies then.

        Of several ranks, rank 0 does that, and the others wait for it.

        Raises:
            CorruptError: The copy has changed since it was read, or what is on disk is not what was written.
            SpaceError: The disk is full or read-only.
            FencedError: Another attempt has taken over.
            OSError: It could not be read, or not written.
        """
        followed, self._followed = self._followed, None
        if followed is not None and self._ranks is not None:
            SaveWords(self._ranks, "resume").hear("returned")
            return read_checkpoint(followed.path)
        if self._ranks is None:
            return self._write_back()
        words = SaveWords(self._ranks, "resume")
        try:
            checkpoint = self._write_back()
        except BaseException:
            words.say_problem("returned")
            raise
        words.say("returned", {"name": checkpoint.name})
        return checkpoint

    def _write_back(self) -> Checkpoint:
        found, self._found = self._found, None
        assert found is not None
        self._history.sync()  # what a checkpoint on disk counts on is durable before it
        checkpoint = write_back(self._disk, found)
        say(f"trainerd: {checkpoint.name} was kept in memory, and is on disk now")
        with contextlib.suppress(OSError):  # what stays is older than the disk, and removed at the end
            self._remove_all_but(None)
        return checkpoint

    def close(self) -> None:
        """Give the place back, with all copies, unless one is newer than all on disk: then that is left.

        So it is if the disk is full, or the script failed before the state was restored.
        """
        if self._store is not None:
            self._lock.close()
            with contextlib.suppress(OSError):  # unknown is not newer: the copies stay
                if _newest_step(self._store) <= _newest_step(self._disk):
                    self._discard()
            self._store = None
        self.is_on = False

    def turn_off(self, reason: str) -> None:
        """Keep no copies in this attempt, remove those that are there, and say why."""
        say(f"trainerd: no copies are kept in memory: {reason}")
        self.is_on = False
        self._discard()

    # ------------------------------------------------------------------ while the run goes on

    def is_due(self) -> bool:
        """Tell whether a boundary crossed now is to be copied."""
        return self.is_on and self.budget.is_due()

    def has_room(self, size_bytes: int) -> bool:
        """Tell whether a copy of that size can be kept; where memory is short, turn the copies off."""
        problem = self._why_no_room(size_bytes)
        if problem is not None:
            self.turn_off(problem)
        return problem is None

    def _why_no_room(self, size_bytes: int) -> str | None:
        assert self._store is not None
        try:
            rooms = memory_room(self._store.directory)
        except OSError as error:
            return str(error)
        return why_no_room(rooms, size_bytes=size_bytes, held_bytes=self._held_bytes)

    def store_for(self, size_bytes: int) -> CheckpointStore:
        """Return the place in memory, which has room for a copy of that size. From the thread that writes.

        Raises:
            AbandonedError: The copies were turned off since it was agreed upon.
            SpaceError: It has no room.
        """
        if self._store is None or not self.is_on:
            raise AbandonedError
        problem = self._why_no_room(size_bytes)
        if problem is not None:
            raise SpaceError(problem)
        return self._store

    def decline(self, number: int) -> None:
        """Tell the other ranks that this one has nothing to copy at the boundary that they agreed upon.

        Raises:
            RankLostError: Rank 0 is gone.
        """
        assert self._joint_copies is not None
        self._joint_copies.decline(number)

    def joint_copy(self, number: int, *, size_bytes: int) -> JointCopy:
        """Return the destination of the copy that all ranks make.

        Args:
            number: Number of the round in which it was agreed upon.
            size_bytes: Size of this rank's files.
        """
        assert self._joint_copies is not None
        return JointCopy(self._joint_copies, number, size_bytes=size_bytes, place=self)

    def begin(self, manifest: Manifest) -> Part:
        """Begin the next copy. From the thread that writes, as all below."""
        assert self._store is not None
        return SoloPart(self._store, self._store.begin(manifest.step))

    def commit(self, part: Part, manifest: Manifest, *, is_urgent: bool) -> Checkpoint:
        """Make what was written the newest copy, and remove the one before.

        Raises:
            NonFiniteLossError: The loss of a step before the boundary has arrived, and is NaN or infinite.
        """
        del is_urgent
        # The history need not be durable: what ends the machine ends the copy too.
        history_bytes = self._rows.reach(manifest.history_bytes)
        manifest = replace(manifest, history_bytes=history_bytes, reason=FROM_MEMORY)
        copy = part.commit(manifest, reads_back=False)
        KEPT.hit()
        self._remove_all_but(copy)
        return copy

    def ended(self, error: BaseException | None, background_s: float) -> None:
        """Take in how the writing of a copy ended, and its processor time in the background."""
        self.budget.written(background_s)
        # What called it off is newer, the thread that trains says itself that a loss is not finite, and the
        # copies are what the next attempt goes on from if a rank is lost. A problem of another rank than
        # rank 0 was told to rank 0, which decides.
        is_quiet = isinstance(error, AbandonedError | NonFiniteLossError | RankLostError)
        if error is not None and not is_quiet and self._settings.environment.rank == 0:
            message = (
                error.message if isinstance(error, TrainerdError) else f"{type(error).__name__}: {error}"
            )
            self.turn_off(message)

    def _discard(self) -> None:
        """Remove what is in memory, unless it is another attempt's by now."""
        if self._store is None or not self._store.is_taken_over:
            discard_memory(self._disk.directory)

    def _remove_all_but(self, kept: Checkpoint | None) -> None:
        assert self._store is not None
        present = self._store.checkpoints()
        for copy in present:
            if kept is None or copy.name != kept.name:
                renamed = rename_for_removal(copy.path)
                if renamed is not None:
                    remove_renamed(renamed)
        self._held_bytes = kept.manifest.bytes if kept is not None else 0


def _newest_step(store: CheckpointStore) -> int:
    present = store.checkpoints()
    return present[-1].step if present else -1


def _share(environ: Mapping[str, str]) -> float:
    """Return the share that the environment sets.

    Raises:
        UserError: It is not a number above 0.
    """
    text = environ.get(MEMORY_SHARE)
    if not text:
        return COST_SHARE_MAX
    with contextlib.suppress(ValueError):
        share = float(text)
        if share > 0:  # as NaN is not
            return share
    raise UserError(
        f"{MEMORY_SHARE}={text!r} is not a number above 0",
        hint=f"set the share of the training time that copies in memory may cost, such as "
        f"{COST_SHARE_MAX:g}, or unset it",
    )
