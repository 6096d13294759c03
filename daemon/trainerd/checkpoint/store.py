"""The checkpoint store: one folder of checkpoints, and beside it what was set aside.

Invariants:
    Whoever changes anything here holds the writers' lock.
    A folder named ``step-…`` is a whole checkpoint or was damaged later; it is never one in the making.
    Nothing that once was a checkpoint is deleted except by retention: it is moved aside with a reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint import manifest as manifests
from trainerd.checkpoint.names import REMOVING_PREFIX, STAGING_PREFIX, parse_name
from trainerd.checkpoint.retention import RetentionPlan, retention_plan
from trainerd.checkpoint.staging import Checkpoint, Staging
from trainerd.checkpoint.verify import verify_files
from trainerd.contract.durable import TEMPORARY_INFIX, make_directory, sync_directory, write_file
from trainerd.contract.failpoints import declare
from trainerd.errors import CorruptError, LockedError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from trainerd.contract.paths import RunPaths
    from trainerd.contract.policy import RetentionPolicy

__all__ = ["Aside", "Checkpoint", "CheckpointStore", "Staging"]

QUARANTINED = declare(
    "quarantine.moved", "the corrupt checkpoint in quarantine, its reason perhaps not yet beside it"
)
PRUNE_RENAMED = declare("prune.renamed", "a pruned checkpoint under a name that the next writer sweeps")
PRUNE_REMOVED = declare("prune.removed", "nothing")

LOCK_NAME: Final = ".lock"
REASON_NAME: Final = "reason.txt"
PINS_NAME: Final = "pins"


@dataclass(frozen=True)
class Aside:
    """A checkpoint that was moved aside: where it is and why."""

    path: Path
    reason: str


class CheckpointStore:
    """One folder of checkpoints.

    Args:
        directory: The folder; made by the first writer.
        quarantine: Where corrupt checkpoints go; ``<directory>/quarantine`` if not given.
        abandoned: Where those go that a rollback left behind; ``<directory>/abandoned`` if not given.
    """

    def __init__(
        self, directory: Path, *, quarantine: Path | None = None, abandoned: Path | None = None
    ) -> None:
        self.directory = directory
        self._quarantine = quarantine or directory / "quarantine"
        self._abandoned = abandoned or directory / "abandoned"

    @classmethod
    def of_run(cls, run: RunPaths) -> CheckpointStore:
        """Return the store of a run folder."""
        return cls(run.checkpoints, quarantine=run.quarantine, abandoned=run.abandoned)

    # ------------------------------------------------------------------ reading

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return what is committed, oldest first. Those whose manifest cannot be read are in `problems`."""
        return tuple(found for _, found in self._scan() if isinstance(found, Checkpoint))

    def problems(self) -> tuple[CorruptError, ...]:
        """Return what is wrong with the folders that have a checkpoint's name and no readable manifest."""
        return tuple(found for _, found in self._scan() if isinstance(found, CorruptError))

    def find(self, name: str) -> Checkpoint | None:
        """Return the checkpoint of that name, None if there is none."""
        return next((checkpoint for checkpoint in self.checkpoints() if checkpoint.name == name), None)

    def verify(self, checkpoint: Checkpoint) -> None:
        """Read all of a checkpoint and compare it with its manifest.

        Raises:
            CorruptError: It is not what was written.
            OSError: It could not be read.
        """
        verify_files(checkpoint.path, checkpoint.manifest)

    def newest_sound(self) -> Checkpoint | None:
        """Return the newest that verifies, leaving everything where it is: for those who only look."""
        for _, found in reversed(list(self._scan())):
            if isinstance(found, Checkpoint):
                with contextlib.suppress(CorruptError):
                    self.verify(found)
                    return found
        return None

    def newest_verified(self) -> Checkpoint | None:
        """Return the newest that verifies, moving into quarantine those that do not. Needs the lock."""
        for path, found in reversed(list(self._scan())):
            try:
                if isinstance(found, CorruptError):
                    raise found
                self.verify(found)
            except CorruptError as error:
                self.quarantine(path, error.message)
            else:
                return found
        return None

    def _scan(self) -> Iterator[tuple[Path, Checkpoint | CorruptError]]:
        try:
            names = [entry.name for entry in os.scandir(self.directory)]
        except FileNotFoundError:
            return
        placed = sorted((place, name) for name in names if (place := parse_name(name)) is not None)
        for (step, ordinal), name in placed:
            path = self.directory / name
            try:
                data = (path / manifests.MANIFEST_NAME).read_bytes()
                manifest = manifests.decode(data, source=f"{name}/{manifests.MANIFEST_NAME}")
                if manifest.step != step:
                    raise CorruptError(f"{name}: its manifest is of step {manifest.step}")
            except (FileNotFoundError, NotADirectoryError):
                if path.exists():  # or it was pruned while we looked
                    yield path, CorruptError(f"{name}: it has no manifest")
            except CorruptError as error:
                yield path, error
            else:
                yield path, Checkpoint(path, step, ordinal, manifest)

    # ------------------------------------------------------------------ writing

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the writers' lock.

        A record lock, not flock: loader workers that are forked while it is held do not inherit it.

        Raises:
            LockedError: Another process holds it; the message says which.
        """
        make_directory(self.directory)
        descriptor = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise LockedError(
                    f"{self.directory} is being written by another process (pid {holder})",
                    hint="wait for it to end, or give this run a folder of its own",
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def begin(self, step: int) -> Staging:
        """Begin a checkpoint at a step. Needs the lock."""
        return Staging(self.directory, step)

    def sweep(self) -> list[Path]:
        """Remove what a crash left: checkpoints in the making, half-removed ones. Needs the lock."""
        leftovers = [
            path
            for path in self.directory.iterdir()
            if path.name.startswith((STAGING_PREFIX, REMOVING_PREFIX)) or TEMPORARY_INFIX in path.name
        ]
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return leftovers

    def prune(self, policy: RetentionPolicy, *, protected: Collection[str] = ()) -> RetentionPlan:
        """Remove what the policy does not keep. Needs the lock."""
        plan = retention_plan(
            self.checkpoints(), policy, protected=dict.fromkeys(protected, "in use") | self.pins()
        )
        for name in plan.prune:
            self._remove(self.directory / name)
        return plan

    def quarantine(self, path: Path, reason: str) -> Path:
        """Move a checkpoint that failed verification aside, with the reason. Needs the lock."""
        return self._set_aside(path, self._quarantine, reason)

    def quarantined(self) -> tuple[Aside, ...]:
        """Return what is in quarantine."""
        return _listed(self._quarantine)

    def set_aside_after(self, checkpoint: Checkpoint | None, reason: str) -> list[Path]:
        """Move those newer than `checkpoint` aside, all if it is None: a rollback leaves them. Needs the lock."""
        newer = [c for c in self.checkpoints() if checkpoint is None or _place(c) > _place(checkpoint)]
        return [self._set_aside(each.path, self._abandoned, reason) for each in newer]

    def abandoned(self) -> tuple[Aside, ...]:
        """Return what rollbacks left behind."""
        return _listed(self._abandoned)

    def pins(self) -> dict[str, str]:
        """Return the names of pinned checkpoints, each with why."""
        try:
            return {
                path.name: f"pinned: {path.read_text().strip()}"
                for path in (self.directory / PINS_NAME).iterdir()
            }
        except FileNotFoundError:
            return {}

    def pin(self, name: str, note: str = "") -> None:
        """Keep a checkpoint whatever the policy says."""
        make_directory(self.directory / PINS_NAME)
        write_file(self.directory / PINS_NAME / name, f"{note}\n".encode())

    def unpin(self, name: str) -> None:
        """Leave a checkpoint to the policy again."""
        (self.directory / PINS_NAME / name).unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        # Renamed first: a removal cut short leaves no folder that looks like a damaged checkpoint.
        doomed = path.with_name(f"{REMOVING_PREFIX}{path.name}-{os.getpid()}")
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return  # somebody removed it by hand
        PRUNE_RENAMED.hit()
        shutil.rmtree(doomed, ignore_errors=True)
        PRUNE_REMOVED.hit()

    def _set_aside(self, path: Path, folder: Path, reason: str) -> Path:
        make_directory(folder)
        for serial in itertools.count():
            place = folder / (path.name if serial == 0 else f"{path.name}~{serial}")
            if not os.path.lexists(place):
                break
        path.rename(place)
        sync_directory(folder)
        sync_directory(self.directory)
        QUARANTINED.hit()
        if place.is_dir():
            write_file(place / REASON_NAME, f"{reason}\n".encode())
        return place


def _place(checkpoint: Checkpoint) -> tuple[int, int]:
    return (checkpoint.step, checkpoint.ordinal)


def _listed(folder: Path) -> tuple[Aside, ...]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return ()
    return tuple(Aside(path, _reason_of(path)) for path in paths if not path.name.startswith("."))


def _reason_of(path: Path) -> str:
    try:
        return (path / REASON_NAME).read_text().strip()
    except OSError:
        return "the reason was lost"
