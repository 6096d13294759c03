"""Copies committed checkpoints to another place, in a thread of its own, and brings the newest one back.

Invariants:
    Only what is committed and verifies is copied.
    At most one copy is in flight and one waits; of those that wait the newest wins.
    Nothing is removed over there but what retention removed here.
    What goes wrong over there never stops training: it is said in a warning, and the next save tries again.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.transfer import pull_newest, push
from trainerd.errors import CorruptError, TrainerdError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainerd.checkpoint.storage import Storage
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore

CLOSE_LIMIT_S: Final = 600.0
"""How long `close` waits for the copy of the last checkpoint, in seconds."""


class Mirror:
    """One other place.

    Args:
        storage: What is there.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._changed = threading.Condition()
        self._next: Checkpoint | None = None
        self._removed: set[str] = set()
        self._problem: str | None = None
        self._thread: threading.Thread | None = None

    def take(self, checkpoint: Checkpoint, *, removed: Iterable[str] = ()) -> None:
        """Have a checkpoint copied, and what retention removed here removed there. Returns at once."""
        with self._changed:
            self._next = checkpoint
            self._removed.update(removed)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trainerd-mirror", daemon=True)
                self._thread.start()

    def pull(self, store: CheckpointStore) -> Checkpoint | None:
        """Bring back the newest checkpoint that verifies, None if there is none. Needs the store's lock.

        Raises:
            OSError: The other place cannot be reached: what is there is unknown.
        """
        return pull_newest(self._storage, store)

    def wait(self, *, limit_s: float = CLOSE_LIMIT_S) -> bool:
        """Wait until everything is copied, at most `limit_s` seconds; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout=limit_s)

    def warn(self) -> None:
        """Say what went wrong since the last time, if anything did."""
        with self._changed:
            problem, self._problem = self._problem, None
        if problem is not None:
            warnings.warn(f"trainerd: the mirror: {problem}", stacklevel=4)

    def _work(self) -> None:
        while True:
            with self._changed:
                checkpoint, self._next = self._next, None
                removed, self._removed = self._removed, set()
                if checkpoint is None:
                    self._thread = None
                    self._changed.notify_all()
                    return
            try:
                push(checkpoint, self._storage)
                for name in sorted(removed):
                    self._storage.remove(name)
                    removed = removed - {name}
            except FileNotFoundError:
                self._give_back(removed, None)  # pruned before its turn came: a newer one waits
            except (OSError, TrainerdError) as error:
                what = "is damaged" if isinstance(error, CorruptError) else "is not there yet"
                self._give_back(removed, f"{checkpoint.name} {what}: {error}")
            except Exception as error:  # noqa: BLE001 - storages of others raise what they like
                self._give_back(
                    removed, f"{checkpoint.name} is not there yet: {type(error).__name__}: {error}"
                )

    def _give_back(self, removed: set[str], problem: str | None) -> None:
        with self._changed:
            self._removed |= removed
            self._problem = problem or self._problem
