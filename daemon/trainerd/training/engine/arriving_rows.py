"""Rows of the metric history whose numbers are still on their way from a device.

Invariants:
    Rows and reports reach the history in the order in which they were noted, whole: one that can be written
    already waits for those before it.
    The loop never waits: `advance` writes what has arrived, and leaves the rest.
    A checkpoint is committed only when all rows that belong to it are in the history: `mark` notes the place
    at the save, and `reach`, in the thread that commits, waits for what is before it. A loss that is not
    finite and arrives there ends that save.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trainerd.errors import NonFiniteLossError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.engine.device_values import Arrival, Number
    from trainerd.training.engine.history import HistoryWriter
    from trainerd.training.engine.silent_history import SilentHistory

WAITING_MAX: Final = 4096
"""So many rows may wait; then the loop waits for the oldest. A device's own queue is shorter."""


@dataclass
class LateRow:
    """One row or report.

    Attributes:
        values: Numbers, and functions that read those that are on their way.
        write: Writes it, given all numbers, and returns what the resume is to compare; None for nothing.
        batch: The numbers on their way; None if all are here.
        take_loss: Called with each of the losses once it is here.
        losses: Functions that read the losses that are on their way.
    """

    values: Mapping[str, Any]
    write: Callable[[dict[str, Number]], Callable[[], None] | None]
    batch: Arrival | None = None
    take_loss: Callable[[float], None] = lambda _: None
    losses: list[Callable[[], Number]] = field(default_factory=list)


@dataclass
class _Place:
    size_bytes: int | None = None


class LateMark(int):
    """Size of the history at a moment at which rows waited, as a negative number; `reach` says what it is."""

    place: _Place


class ArrivingRows:
    """The rows that are not in the history yet, in order.

    Args:
        history: Where they go.

    Attributes:
        waiting: The rows, and the marks between them. Nothing waits: the next row may be written at once.
        problem: What a loss that has arrived shows, for `check`.
    """

    def __init__(self, history: HistoryWriter | SilentHistory) -> None:
        self._history = history
        self.waiting: deque[LateRow | _Place] = deque()
        self._comparisons: deque[Callable[[], None]] = deque()
        self._lock = threading.RLock()
        self.problem: NonFiniteLossError | None = None

    # ------------------------------------------------------------------ from the thread that trains

    def add(self, row: LateRow) -> None:
        """Take a row behind those that wait."""
        self.waiting.append(row)
        if len(self.waiting) > WAITING_MAX:
            self._wait_for_first()

    def advance(self) -> None:
        """Write what has arrived, and compare it, without waiting for a device or for another thread.

        Raises:
            NonFiniteLossError: A loss that has arrived is NaN or infinite.
            SpaceError: The disk is full.
        """
        if self.waiting and self._lock.acquire(blocking=False):
            try:
                self._write_arrived()
            finally:
                self._lock.release()
        if self._comparisons:
            self._compare()
        self.check()

    def check(self) -> None:
        """Raise what any thread has found.

        Raises:
            NonFiniteLossError: A loss that has arrived is NaN or infinite.
        """
        if self.problem is not None:
            raise NonFiniteLossError(*self.problem.args)

    def settle(self) -> None:
        """Wait for everything, write and compare it.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
            SpaceError: The disk is full.
        """
        while self.waiting:
            self._wait_for_first()
        self._compare()
        self.check()

    def close(self) -> None:
        """Write what can be had when the run ends, in whatever way. What ends it is said already."""
        # RuntimeError: the device is lost, and its numbers with it.
        with contextlib.suppress(NonFiniteLossError, SpaceError, OSError, RuntimeError):
            self.settle()

    def mark(self) -> int:
        """Return how many bytes of the history belong to a checkpoint of this moment.

        While rows wait that is not known: then it is a negative number, which `reach` takes.
        """
        with self._lock:
            if not self.waiting:
                return self._history.position_bytes
            mark = LateMark(-1)
            mark.place = _Place()
            self.waiting.append(mark.place)
            return mark

    # ------------------------------------------------------------------ from the thread that commits

    def reach(self, mark: int) -> int:
        """Wait until all rows before a mark are in the history; return its place in bytes.

        Raises:
            NonFiniteLossError: One of their losses is NaN or infinite.
            SpaceError: The disk is full.
        """
        if not isinstance(mark, LateMark):
            self.check()
            return mark
        while mark.place.size_bytes is None:
            self._wait_for_first()
        self.check()
        return mark.place.size_bytes

    # ------------------------------------------------------------------ within

    def _wait_for_first(self) -> None:
        with contextlib.suppress(IndexError):  # another thread has written it meanwhile
            first = self.waiting[0]
            if isinstance(first, LateRow) and first.batch is not None:
                first.batch.wait()
        with self._lock:
            self._write_arrived()

    def _write_arrived(self) -> None:
        for entry in self._arrived():
            if isinstance(entry, _Place):
                entry.size_bytes = self._history.position_bytes
            else:
                self._write(entry)

    def _arrived(self) -> Iterator[LateRow | _Place]:
        """Yield what can be written. Each stays first in the queue until it is."""
        while self.waiting:
            first = self.waiting[0]
            if isinstance(first, LateRow) and first.batch is not None and not first.batch.has_arrived():
                return
            yield first
            self.waiting.popleft()

    def _write(self, row: LateRow) -> None:
        values = {name: value() if callable(value) else value for name, value in row.values.items()}
        row.values, row.batch = values, None  # read once, should the disk be full now
        if (comparison := row.write(values)) is not None:
            self._comparisons.append(comparison)
        losses, row.losses = row.losses, []
        for loss in losses:
            try:
                row.take_loss(float(loss()))
            except NonFiniteLossError as error:
                self.problem = self.problem or error

    def _compare(self) -> None:
        while self._comparisons:
            self._comparisons.popleft()()
