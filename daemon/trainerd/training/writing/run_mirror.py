"""The mirror of a run, which several machines may train one after the other.

What a machine finds over there is the continuation of what it has, or it is not touched:

* A folder without a run brings back the newest checkpoint of the newest line, with the metric history. One
  beside which an older run was moved aside has a run: the new one that was asked for.
* A folder whose line is over there too, and longer, is of a machine that comes back: the newest is brought
  back.
* A checkpoint that would come before one that is over there belongs to another line: a fresh run, a run that
  went back, a machine that could not ask. It begins the next line (`trainerd.checkpoint.generations`).

``mirror.json`` in the run folder says which line is this folder's. It is written before the first copy of a
line, so a crash leaves at most a number to which nothing was copied yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.generations import GenerationStorage, generations
from trainerd.checkpoint.run_aside import is_aside
from trainerd.checkpoint.transfer import pull, pull_history, pull_newest, push, stored_names
from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.errors import CorruptError
from trainerd.training.interruption.leaving import say
from trainerd.training.writing.mirror import Mirror

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.checkpoint.storage import Storage
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore

MIRROR_FORMAT: Final = "trainerd.mirror/1"


@dataclass(frozen=True)
class MirrorRecord:
    """Which line of a mirror a run folder goes on with.

    Attributes:
        line: Its number, from 0; None before anything was copied.
    """

    line: int | None = None


class RunMirror(Mirror):
    """The mirror of one run.

    Args:
        storage: The place of this run alone.
        where: How to name it in messages.
        record: File that says which line is this folder's.
        history: The run's metric history.
        bytes_per_s: How fast to copy at most; None is no limit.
        is_fresh: Whether a new run was asked for: nothing is brought back.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        where: str,
        record: Path,
        history: Path,
        bytes_per_s: float | None = None,
        is_fresh: bool = False,
    ) -> None:
        super().__init__(storage, history=history, bytes_per_s=bytes_per_s)
        self._where = where
        self._record = record
        self._is_fresh = is_fresh

    def pull(self, store: CheckpointStore) -> Checkpoint | None:
        """Bring back the newest checkpoint of the newest line, if this folder has no run.

        Raises:
            OSError: The other place cannot be asked: a new run would be a second one.
        """
        own = self._line()
        if self._is_fresh or (own is None and self._has_older_run()):
            return None
        if own is not None and not store.quarantined():
            return None  # a new run was begun here
        try:
            for line in [own] if own is not None else reversed(generations(self._storage)):
                found = pull_newest(GenerationStorage(self._storage, line), store)
                if found is not None:
                    self._write(line)
                    say(f"trainerd: brought back {found.name} from {self._where}")
                    return found
        except Exception as error:
            raise OSError(
                f"{self._where} cannot be asked for checkpoints of this run, and there is none here: "
                f"{type(error).__name__}: {error}"
            ) from error
        return None

    def pull_newer(self, store: CheckpointStore, than: Checkpoint) -> Checkpoint | None:
        """Bring back the newest checkpoint of this folder's line if it is newer than what is here.

        None too if the other place cannot be asked, which is said.
        """
        line = self._line()
        if self._is_fresh or line is None:
            return None
        left = {aside.name for aside in (*store.abandoned(), *store.quarantined())}
        storage = GenerationStorage(self._storage, line)
        try:
            names = stored_names(storage)
            if not names or names[-1] in left or not _is_after(names[-1], than.name):
                return None
            found = pull(names[-1], storage, store)
        except CorruptError as error:
            say(f"trainerd: {self._where}: {error}; going on from {than.name}, which is here")
            return None
        except Exception as error:  # noqa: BLE001 - storages of others raise what they like
            say(
                f"trainerd: {self._where} cannot be asked for a checkpoint newer than {than.name}: "
                f"{type(error).__name__}: {error}"
            )
            return None
        say(f"trainerd: brought back {found.name} from {self._where}; the newest here was {than.name}")
        return found

    def history_of(self, checkpoint: Checkpoint) -> bytes | None:
        """Return the metric history of a checkpoint that was brought back; None if it cannot be had."""
        storage = GenerationStorage(self._storage, self._line() or 0)
        try:
            return pull_history(checkpoint.name, storage, size_bytes=checkpoint.manifest.history_bytes)
        except Exception as error:  # noqa: BLE001 - the state is here; what is lost is said
            say(f"trainerd: {self._where}: the metric history cannot be brought back: {error}")
            return None

    # ------------------------------------------------------------------ in the thread that copies

    def push(self, checkpoint: Checkpoint) -> None:
        """Copy one checkpoint into this folder's line, or into the next one if that goes on elsewhere."""
        all_lines = generations(self._storage)
        line = self._line()
        if line is None:
            line = all_lines[-1] + 1 if all_lines else 0
            self._write(line)
        names = stored_names(GenerationStorage(self._storage, line))
        if names and _is_after(names[-1], checkpoint.name):
            say(
                f"trainerd: {self._where} holds {names[-1]}, which does not follow from {checkpoint.name}: "
                f"it stays, and what follows is copied beside it, as line {all_lines[-1] + 1}"
            )
            line = all_lines[-1] + 1
            self._write(line)
        storage = GenerationStorage(self._storage, line)
        push(checkpoint, storage, history=self._history, pace=self.paced)

    def remove(self, name: str) -> None:
        """Remove one checkpoint of this folder's line."""
        GenerationStorage(self._storage, self._line() or 0).remove(name)

    # ------------------------------------------------------------------ within

    def _has_older_run(self) -> bool:
        """Tell whether a run was moved aside here: then this folder is not an empty disk but a new run."""
        root = self._record.parent
        beside = [each.name for each in root.parent.iterdir()]
        return any(is_aside(name) and name.startswith(f"{root.name}.") for name in beside)

    def _line(self) -> int | None:
        try:
            text = read_file(self._record)
        except FileNotFoundError:
            return None
        return codec.from_json(text, MirrorRecord, MIRROR_FORMAT, source=self._record.name).line

    def _write(self, line: int) -> None:
        write_file(self._record, codec.to_json(MirrorRecord(line), MIRROR_FORMAT))


def _is_after(name: str, other: str) -> bool:
    places = CheckpointName.parse(name), CheckpointName.parse(other)
    assert places[0] is not None
    assert places[1] is not None
    return places[0] > places[1]
