"""Copies committed checkpoints to another place, in a thread of its own, and brings the newest one back.

Invariants:
    Only what is committed and verifies is copied.
    At most one copy is in flight and one waits; of those that wait the newest wins.
    Nothing is removed over there but what retention removed here.
    What goes wrong over there never stops training: a copy is tried several times, then a warning says so,
    and the next save tries again.
"""

from __future__ import annotations

import threading
import time
import warnings
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.transfer import pull_newest, push
from trainerd.errors import CorruptError, TrainerdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from trainerd.checkpoint.storage import Storage
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore

CLOSE_LIMIT_S: Final = 600.0
"""How long `close` waits for the copy of the last checkpoint, in seconds."""

TRIES_MAX: Final = 5
"""How often one copy is tried."""

RETRY_S: Final = 1.0
"""Wait before the second try, in seconds; doubled before each further one. A hurried copy waits no longer."""


class Mirror:
    """One other place.

    Args:
        storage: What is there.
        history: Metric history that goes along; None for none.
        bytes_per_s: How fast to copy at most; None is no limit. While something waits for the copy there is
            none.
    """

    def __init__(
        self, storage: Storage, *, history: Path | None = None, bytes_per_s: float | None = None
    ) -> None:
        self._storage = storage
        self._history = history
        self._bytes_per_s = bytes_per_s
        self._changed = threading.Condition()
        self._next: Checkpoint | None = None
        self._removed: set[str] = set()
        self._problem: str | None = None
        self._thread: threading.Thread | None = None
        self._is_hurried = False
        self._taken = self._there = ""  # names: of the last one to be copied, of the last one copied

    def take(self, checkpoint: Checkpoint, *, removed: Iterable[str] = ()) -> None:
        """Have a checkpoint copied, and what retention removed here removed there. Returns at once."""
        with self._changed:
            self._next = checkpoint
            self._taken, self._there = checkpoint.name, ""
            self._removed.update(removed)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trainerd-mirror", daemon=True)
                self._thread.start()

    def pull(self, store: CheckpointStore) -> Checkpoint | None:
        """Bring back the newest checkpoint that verifies, None if there is none. Needs the store's lock.

        Raises:
            OSError: The other place cannot be reached: what is there is unknown.
        """
        return pull_newest(self._storage, store)

    def pull_newer(self, store: CheckpointStore, than: Checkpoint) -> Checkpoint | None:
        """Bring back what is newer than the newest here; None if nothing is known to be."""
        del store, than
        return None

    def history_of(self, checkpoint: Checkpoint) -> bytes | None:
        """Return the metric history that came with a checkpoint; None if it cannot be had."""
        del checkpoint
        return None

    def wait(self, *, limit_s: float = CLOSE_LIMIT_S) -> bool:
        """Wait until everything is copied, at most `limit_s` seconds; return whether the newest is there."""
        with self._changed:
            self._is_hurried = True
            self._changed.notify_all()
            is_over = self._changed.wait_for(lambda: self._thread is None, timeout=limit_s)
            self._is_hurried = False
            return is_over and self._there == self._taken

    def ensure(self, checkpoint: Checkpoint, *, limit_s: float) -> bool:
        """Have a checkpoint copied if it was not given before, and wait; return whether it is there."""
        if self._taken != checkpoint.name:  # the one that this attempt went on from
            self.take(checkpoint)
        return self.wait(limit_s=limit_s)

    def warn(self) -> None:
        """Say what went wrong since the last time, if anything did."""
        with self._changed:
            problem, self._problem = self._problem, None
        if problem is not None:
            warnings.warn(f"trainerd: the mirror: {problem}", stacklevel=4)

    # ------------------------------------------------------------------ in the thread that copies

    def push(self, checkpoint: Checkpoint) -> None:
        """Copy one checkpoint."""
        push(checkpoint, self._storage, history=self._history, pace=self.paced)

    def remove(self, name: str) -> None:
        """Remove one checkpoint over there."""
        self._storage.remove(name)

    def paced(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Pass parts on no faster than the limit."""
        began_s, passed = time.monotonic(), 0
        for part in parts:
            yield part
            passed += len(part)
            if self._bytes_per_s is not None:
                self._pause(began_s + passed / self._bytes_per_s - time.monotonic())

    def _pause(self, seconds: float, *, hurried_s: float = 0.0) -> None:
        began_s = time.monotonic()
        with self._changed:
            while True:
                whole_s = min(seconds, hurried_s) if self._is_hurried else seconds
                left_s = began_s + whole_s - time.monotonic()
                if left_s <= 0:
                    return
                self._changed.wait(left_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                checkpoint, self._next = self._next, None
                removed, self._removed = self._removed, set()
                if checkpoint is None:
                    self._thread = None
                    self._changed.notify_all()
                    return
            problem = None
            for each in range(TRIES_MAX):
                problem, is_worth_another = self._try(checkpoint, removed)
                if not is_worth_another or self._next is not None:
                    break
                if each < TRIES_MAX - 1:
                    self._pause(RETRY_S * 2**each, hurried_s=RETRY_S)
            with self._changed:
                self._removed |= removed
                self._problem = problem or self._problem

    def _try(self, checkpoint: Checkpoint, removed: set[str]) -> tuple[str | None, bool]:
        """Copy once; return what went wrong, and whether to try again. What was removed leaves the set."""
        what = f"{checkpoint.name} is not there yet"
        try:
            self.push(checkpoint)
            self._there = checkpoint.name
            for name in sorted(removed):
                what = f"{name} is to be removed there, and is still there"
                self.remove(name)
                removed.discard(name)
        except CorruptError as error:
            return f"{checkpoint.name} is damaged: {error}", False
        except Exception as error:  # noqa: BLE001 - storages of others raise what they like
            if isinstance(error, FileNotFoundError) and not checkpoint.path.exists():
                return None, False  # pruned before its turn came: a newer one waits
            kind = "" if isinstance(error, OSError | TrainerdError) else f"{type(error).__name__}: "
            return f"{what}: {kind}{error}", True
        return None, False
