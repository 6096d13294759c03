"""The checkpoints of one run: list, verify, write, prune, set aside.

Invariants:
    A folder named like a checkpoint was committed: it was complete and durable before it got that name.
    Nothing is resumed from before its digests were read in this process.
    Writing, pruning, forking and sweeping need the writers' lock. Reading, pinning and quarantining need
    none: a rename of what another process renamed already is not an error.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from trainerd.checkpoint.aside import Aside, AsideFolder, aside_folders, give_back, take_aside
from trainerd.checkpoint.checkpoint_names import CheckpointName, is_leftover
from trainerd.checkpoint.committed import Checkpoint, place_of, read_checkpoint
from trainerd.checkpoint.fence import WriterFolder
from trainerd.checkpoint.fork import Fork, clear_fork, note_fork, pending_fork
from trainerd.checkpoint.housekeeping import Housekeeping, policy_for_the_others
from trainerd.checkpoint.links import LAST, update_links
from trainerd.checkpoint.listing import checkpoint_folders, entries, scan
from trainerd.checkpoint.lock import drop_lock_of_elsewhere, holds_lock, writers_lock
from trainerd.checkpoint.memory_place import discard_memory
from trainerd.checkpoint.pins import Pin, pins, remove_pin, set_pin
from trainerd.checkpoint.reading import is_being_read, reading
from trainerd.checkpoint.removal import remove_renamed
from trainerd.checkpoint.retention import RetentionPlan, candidate_of, retention_plan
from trainerd.checkpoint.space import make_reserve
from trainerd.checkpoint.staging import Staging
from trainerd.checkpoint.verify import verify_files
from trainerd.contract.clock import Clock, SystemClock
from trainerd.contract.durable import make_directory, sweep_temporary
from trainerd.errors import CorruptError, InternalError, TrainerdError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.policy import RetentionPolicy

__all__ = ["Aside", "Checkpoint", "CheckpointStore", "Staging"]


Content = TypeVar("Content")


class CheckpointStore:
    """The checkpoints in one folder.

    Args:
        directory: The folder; made by `lock` if it is missing.
        quarantine: Where damaged ones go; ``quarantine`` inside the folder if not given.
        abandoned: Where those go that a fork left behind; ``abandoned`` inside the folder if not given.
        clock: What time it is.

    Attributes:
        passed_over: Names of newer checkpoints that were found damaged or unreadable on the way to the newest
            sound one, with the reasons.
    """

    def __init__(
        self,
        directory: Path,
        *,
        quarantine: Path | None = None,
        abandoned: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.directory = directory
        self._quarantine = aside_folders(directory / "quarantine", quarantine)
        self._abandoned = aside_folders(directory / "abandoned", abandoned)
        self._clock = clock or SystemClock()
        self._housekeeping = Housekeeping(directory)
        self._writer: WriterFolder | None = None
        self._verified: set[str] = set()
        self.passed_over: dict[str, str] = {}

    @classmethod
    def of_run(cls, run: RunPaths) -> CheckpointStore:
        """Return the store of a run folder."""
        return cls(run.checkpoints, quarantine=run.quarantine, abandoned=run.abandoned)

    # ------------------------------------------------------------------ looking

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return what is committed, oldest first. Reads no data.

        What has no readable manifest is in `problems`.

        Raises:
            OSError: The folder cannot be read: unknown, not empty.
        """
        return tuple([found for found in scan(self.directory) if isinstance(found, Checkpoint)])

    def problems(self) -> tuple[TrainerdError, ...]:
        """Return what is wrong with the folders that have a checkpoint's name and no readable manifest."""
        return tuple([found for found in scan(self.directory) if isinstance(found, TrainerdError)])

    def find(self, which: str) -> Checkpoint:
        """Return the checkpoint that a person names: ``step-120``, ``120`` or the full name.

        Raises:
            UserError: There is none; the message says which there are.
        """
        asked = CheckpointName.asked(which)
        present = self.checkpoints()
        for checkpoint in present:
            if checkpoint.place == asked:
                return checkpoint
        there = ", ".join(checkpoint.name for checkpoint in present) or "none"
        unread = "; ".join(problem.message for problem in self.problems())
        also = f"; {unread}" if unread else ""
        raise UserError(f"no checkpoint {which!r} in {self.directory}", hint=f"there are: {there}{also}")

    def reading(self, checkpoint: Checkpoint) -> AbstractContextManager[None]:
        """Keep a checkpoint from being pruned for as long as this is held.

        Raises:
            FileNotFoundError: It is gone.
        """
        return reading(checkpoint.path)

    def verify(self, checkpoint: Checkpoint) -> None:
        """Read every file and compare it with the manifest.

        Raises:
            CorruptError: It is not what was written; the message says where.
            FileNotFoundError: The whole checkpoint is gone.
            OSError: It could not be read, which says nothing about what it is.
        """
        with reading(checkpoint.path):
            verify_files(checkpoint)
        self._verified.add(checkpoint.name)

    def newest_verified(self) -> Checkpoint | None:
        """Return the newest that verifies; damaged ones on the way are moved to quarantine.

        Raises:
            NewerFormatError: The newest one was written by a newer trainerd.
            OSError: Some could not be read and no other one verifies: what is there is unknown.
        """
        found = self._newest(self._verified_only, self._try_quarantine)
        return found[0] if found else None

    def newest_read(self, read: Callable[[Checkpoint], Content]) -> tuple[Checkpoint, Content] | None:
        """Return the newest that verifies and what `read` makes of it; its bytes are read only once.

        Args:
            read: Reads a checkpoint and verifies it on the way; raises what `verify` raises.

        Raises:
            NewerFormatError: The newest one was written by a newer trainerd.
            OSError: Some could not be read and no other one verifies: what is there is unknown.
        """

        def read_and_note(checkpoint: Checkpoint) -> Content:
            with reading(checkpoint.path):
                content = read(checkpoint)
            self._verified.add(checkpoint.name)
            return content

        return self._newest(read_and_note, self._try_quarantine)

    def newest_sound(self) -> Checkpoint | None:
        """Return the newest that verifies and leave everything where it is: for those who only look."""
        found = self._newest(self._verified_only, lambda _path, _reason: None)
        return found[0] if found else None

    def quarantined(self) -> tuple[Aside, ...]:
        """Return the damaged ones, with the reasons."""
        return tuple([aside for folder in self._quarantine for aside in folder.list()])

    def abandoned(self) -> tuple[Aside, ...]:
        """Return those that forks left behind, with the reasons."""
        return tuple([aside for folder in self._abandoned for aside in folder.list()])

    def _verified_only(self, checkpoint: Checkpoint) -> None:
        self.verify(checkpoint)

    def _newest(
        self, look: Callable[[Checkpoint], Content], on_damage: Callable[[Path, str], None]
    ) -> tuple[Checkpoint, Content] | None:
        unreadable: list[OSError] = []
        self.passed_over = {}
        for path in reversed(checkpoint_folders(self.directory)):
            try:
                checkpoint = read_checkpoint(path)
                content = look(checkpoint)
            except CorruptError as error:
                self.passed_over[path.name] = error.message
                on_damage(path, error.message)
            except FileNotFoundError:
                continue  # removed by hand, or set aside by another process, just now
            except OSError as error:
                self.passed_over[path.name] = f"it could not be read: {error}"
                unreadable.append(error)
            else:
                return checkpoint, content
        if unreadable:
            raise unreadable[0]
        return None

    # ------------------------------------------------------------------ writing

    def lock(self, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Hold the writers' lock, waiting `wait_s` seconds for it. See `trainerd.checkpoint.lock`.

        Raises:
            LockedError: Another process holds it; the message says which.
        """
        return writers_lock(self.directory, wait_s=wait_s)

    def take_over(self) -> None:
        """Have every attempt before this one fail at its next save, wherever it runs. Needs the lock.

        To be called before it is looked which checkpoints there are. See `trainerd.checkpoint.fence`.

        Raises:
            SpaceError: The disk is full or read-only.
        """
        self._require_lock("take over")
        self._writer = WriterFolder.take(self.directory)

    @property
    def is_taken_over(self) -> bool:
        """Whether another attempt has taken over since `take_over`."""
        return self._writer is not None and not self._writer.is_held

    def fence_off(self) -> None:
        """Have every attempt before fail at its next save, and drop the lock of one on another machine.

        Needs no lock: for a supervisor that takes over from an attempt of which it can see nothing.

        Raises:
            SpaceError: The disk is full or read-only.
        """
        make_directory(self.directory)
        WriterFolder.take(self.directory)
        drop_lock_of_elsewhere(self.directory)

    def sweep(self) -> list[Path]:
        """Complete or remove what a crash left: a fork, staging folders, half-deleted checkpoints.

        Needs the lock.
        """
        self._require_lock("sweep")
        self._complete_fork()
        folders = [self.directory, *(aside.path for aside in (*self._quarantine, *self._abandoned))]
        removed = [path for folder in folders if folder.is_dir() for path in sweep_temporary(folder)]
        for path in entries(self.directory):
            if is_leftover(path.name):
                remove_renamed(path)
                removed.append(path)
        return removed

    def begin(self, step: int) -> Staging:
        """Begin a new checkpoint. Needs the lock.

        Raises:
            SpaceError: The disk is full or read-only.
            FencedError: Another attempt has taken over.
        """
        self._require_lock("begin")
        self._check_fence()
        self._complete_fork()  # or a new one of the same name would count as left behind
        return Staging.begin(self.directory if self._writer is None else self._writer.path, step)

    def commit(self, staging: Staging, manifest: Manifest, *, reads_back: bool = True) -> Checkpoint:
        """Make what is staged a checkpoint: publish it, point ``last`` to it, and verify it.

        Args:
            staging: Begun by `begin`, with all files in it.
            manifest: Manifest of the checkpoint; its `files` are filled in.
            reads_back: Whether to read all files again and compare their digests. Without it nothing may be
                pruned on the strength of this checkpoint until it is verified.

        Raises:
            SpaceError: The disk is full or read-only; abandon the staging.
            CorruptError: What is on disk is not what was written; it is in quarantine.
            FencedError: Another attempt has taken over.
            OSError: Anything else that the filesystem says; abandon the staging.
        """
        checkpoint = staging.publish(manifest)
        self._check_fence()
        update_links(self.directory, {LAST: checkpoint.name})
        if reads_back:
            try:
                self.verify(read_checkpoint(checkpoint.path))
            except CorruptError as error:
                self._try_quarantine(checkpoint.path, f"read back after it was written: {error.message}")
                raise
        return checkpoint

    def make_room(
        self,
        needed_bytes: int,
        policy: RetentionPolicy,
        *,
        protected: Collection[str] = (),
        is_emergency: bool = False,
    ) -> None:
        """See to it, before a save begins, that it will fit. Needs the lock.

        What the policy will not keep anyway once the new checkpoint is there goes first, oldest first and no
        more than it takes; never the newest verified one. An emergency may have the reserve too.

        Args:
            needed_bytes: Predicted size of the new checkpoint.
            policy: What the user wants kept.
            protected: Never pruned.
            is_emergency: Whether this is the last chance to save.

        Raises:
            SpaceError: It would not fit. Nothing was begun.
        """
        self._require_lock("make room")
        self._check_fence()
        if not self._housekeeping.has_room(needed_bytes):
            early = self.plan(policy_for_the_others(policy), protected=protected)
            self._housekeeping.make_room(needed_bytes, early, is_emergency=is_emergency)

    def keep_reserve(self, size_bytes: int) -> bool:
        """Occupy room that an emergency save may have; return whether there was room for it.

        Needs the lock.
        """
        self._require_lock("keep a reserve")
        self._check_fence()
        return make_reserve(self.directory, size_bytes)

    def plan(self, policy: RetentionPolicy, *, protected: Collection[str] = ()) -> RetentionPlan:
        """Return what `prune` would do. Verifies the newest one if this process has not done so yet."""
        present = self.checkpoints()
        return retention_plan(
            [candidate_of(checkpoint) for checkpoint in present],
            policy,
            protected=protected,
            pinned=self.pins(),
            in_use=[checkpoint.name for checkpoint in present if is_being_read(checkpoint.path)],
            newest_verified=self._newest_known_good(present),
        )

    def prune(
        self, policy: RetentionPolicy, *, protected: Collection[str] = (), in_background: bool = False
    ) -> RetentionPlan:
        """Delete what the policy does not keep; return the plan. Needs the lock.

        A checkpoint that is being read stays. In the background, only the renames are done at the
        return.
        """
        self._require_lock("prune")
        self._check_fence()
        plan = self.plan(policy, protected=protected)
        self._housekeeping.carry_out(plan, in_background=in_background)
        self._housekeeping.point_links(self.checkpoints(), policy)
        return plan

    def wait_for_removals(self, *, limit_s: float) -> bool:
        """Wait for deletions in the background, `limit_s` seconds at most; return whether they are done."""
        return self._housekeeping.wait_for_removals(limit_s=limit_s)

    def set_aside_after(self, checkpoint: Checkpoint | None, reason: str) -> tuple[str, ...]:
        """Leave every newer checkpoint behind: the run goes on from `checkpoint`, or from nothing.

        Needs the lock. What the run has in memory is newer than any, and goes for good.

        Returns:
            The names of those that were moved among the abandoned.
        """
        self._require_lock("set aside")
        discard_memory(self.directory)
        self._complete_fork()
        newer = tuple(
            [
                path.name
                for path in checkpoint_folders(self.directory)
                if checkpoint is None or place_of(path) > checkpoint.place
            ]
        )
        if newer:
            note_fork(self.directory, Fork(newer, reason))
            self._complete_fork()
        return newer

    def bring_back(self, aside: Aside) -> None:
        """Put a checkpoint that was set aside in place again, under its name, with its pin. Needs the lock.

        Raises:
            OSError: It could not be moved.
        """
        self._require_lock("bring back")
        give_back(aside, self.directory / aside.name)
        if aside.note.pin is not None:
            set_pin(self.directory, aside.name, Pin(aside.note.pin, self._clock.wall_s()))
        update_links(self.directory, {LAST: checkpoint_folders(self.directory)[-1].name})

    def quarantine(self, checkpoint: Checkpoint, reason: str) -> Path:
        """Move a damaged checkpoint aside; return where it is now."""
        return self._take_aside(self._quarantine, checkpoint.path, reason)

    def pins(self) -> dict[str, str]:
        """Return the notes of the pins, by the checkpoint's name."""
        return {name: pin.note for name, pin in pins(self.directory).items()}

    def pin(self, name: str, note: str = "") -> None:
        """Keep a checkpoint whatever retention says.

        Raises:
            UserError: No checkpoint has that name.
        """
        set_pin(self.directory, self.find(name).name, Pin(note, self._clock.wall_s()))

    def unpin(self, name: str) -> bool:
        """Take a pin away; return whether there was one."""
        asked = CheckpointName.asked(name)
        return asked is not None and remove_pin(self.directory, str(asked))

    # ------------------------------------------------------------------ within

    def _newest_known_good(self, present: tuple[Checkpoint, ...]) -> str | None:
        for checkpoint in reversed(present):
            if checkpoint.name not in self._verified:
                try:
                    self.verify(checkpoint)
                except (CorruptError, OSError):
                    continue  # it stays, and the next resume finds out what it is
            return checkpoint.name
        return None

    def _complete_fork(self) -> None:
        fork = pending_fork(self.directory)
        if fork is None:
            return
        for name in fork.names:
            with contextlib.suppress(FileNotFoundError):  # moved before the crash
                self._take_aside(self._abandoned, self.directory / name, fork.reason)
        clear_fork(self.directory)

    def _try_quarantine(self, path: Path, reason: str) -> None:
        # Where it cannot be moved, as on a read-only disk, it stays and fails to verify again the next time.
        with contextlib.suppress(OSError, TrainerdError):
            self._take_aside(self._quarantine, path, reason)

    def _take_aside(self, folders: tuple[AsideFolder, ...], path: Path, reason: str) -> Path:
        place = take_aside(
            folders, path, reason=reason, now_s=self._clock.wall_s(), pin=self.pins().get(path.name)
        )
        self._verified.discard(path.name)
        remove_pin(self.directory, path.name)  # a later checkpoint of the same name is not this one
        present = checkpoint_folders(self.directory)
        update_links(self.directory, {LAST: present[-1].name if present else None})
        return place

    def _check_fence(self) -> None:
        if self._writer is not None:
            self._writer.check()

    def _require_lock(self, what: str) -> None:
        if not holds_lock(self.directory):
            self._check_fence()  # then the lock was dropped with it
            raise InternalError(f"{self.directory}: to {what} needs the writers' lock")
