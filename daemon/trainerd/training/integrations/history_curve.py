"""What all trackers have in common: points that come from the metric history.

The history says of each step which value counts. A tracker that begins gets all points so far, from the
history; then each line that is appended becomes points. So what an attempt had in its buffers when it was
killed is not missing, and a step that is run again is there once.

Invariant: a tracker that fails, such as a server that is gone, ends no training. It begins once more, from
the history, after a while.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.contract.safe_text import safe_text
from trainerd.errors import CorruptError, UserError
from trainerd.training.interruption.leaving import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

RETRY_S_MIN: Final = 60.0
RETRY_S_MAX: Final = 3600.0
"""How long after a failure the tracker is tried again, in seconds: twice as long after each one. To begin it
reads the whole history."""
_REASON_CHARACTERS_MAX: Final = 200
_PLACE: Final = {"step", "epoch", "batch", "digest", "report"}


class HistoryCurve(ABC):
    """A tracker that follows the metric history of a run.

    Args:
        run_dir: The run folder.

    Attributes:
        NAME: Name of the tracker, for messages.
    """

    NAME: ClassVar[str] = "tracker"

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._history = RunPaths(run_dir).metrics
        self._is_begun = False
        self._retry_at_s: float | None = None  # while it has failed
        self._retry_s = RETRY_S_MIN

    def line(self, line: bytes) -> None:
        """Take a line that was appended to the history. That the tracker fails is said.

        Raises:
            UserError: The attempt did not begin with a line that says so.
            CorruptError: A file of the run folder that the tracker needs is damaged.
        """
        if self._retry_at_s is not None and time.monotonic() < self._retry_at_s:
            return
        try:
            self._take(json.loads(line))
        except (UserError, CorruptError):
            raise
        except Exception as error:  # noqa: BLE001 - trackers raise what they like, and training is what counts
            self._failed(error)
        else:
            if self._retry_at_s is not None:
                self._retry_at_s, self._retry_s = None, RETRY_S_MIN
                say(f"trainerd: {self.NAME} takes points again, and has all of them")

    def close(self) -> None:
        """The attempt is over: write out what is buffered, all of it if the run has finished."""
        if not self._is_begun:
            return
        try:
            if self._retry_at_s is not None:
                if not RunPaths(self._run_dir).finished.exists():
                    return
                self._begin()
            self.end()
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
        finally:
            self._is_begun = False

    def _take(self, record: dict[str, Any]) -> None:
        if "format" in record or "resume" in record:
            self._is_begun = True
            self._begin()
        elif not self._is_begun:
            raise UserError("the metric history goes on in a file that did not begin")
        elif self._retry_at_s is not None:
            self._begin()
        else:
            self.add(*_point(record))

    def _begin(self) -> None:
        self.begin()
        for step, values in self._so_far():
            self.add(step, values)
        self.begun()

    def _failed(self, error: Exception) -> None:
        if self._retry_at_s is None:
            reason = safe_text(f"{type(error).__name__}: {error}", characters_max=_REASON_CHARACTERS_MAX)
            say(
                f"trainerd: {self.NAME} fails, and training goes on without it: {reason}; the metric "
                "history has all points, and they are added when it works again, or by the next attempt"
            )
        else:
            self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)
        self._retry_at_s = time.monotonic() + self._retry_s

    @abstractmethod
    def begin(self) -> None:
        """Begin a curve that has no points of this attempt yet."""

    def begun(self) -> None:  # noqa: B027 - most trackers have nothing to do here
        """All points of former attempts that count were added."""

    @abstractmethod
    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the points of a step, by name."""

    @abstractmethod
    def flush(self) -> None:
        """Write out what is buffered."""

    @abstractmethod
    def end(self) -> None:
        """Write out what is buffered, and let go."""

    def _so_far(self) -> Iterator[tuple[int, dict[str, float]]]:
        found = read_history(self._history)
        records = sorted((*found.rows, *found.reports), key=lambda each: (each["step"], "report" in each))
        return map(_point, records)


def _point(record: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    prefix = "report/" if record.get("report") else ""
    return record["step"], {
        f"{prefix}{name}": float(value) for name, value in record.items() if name not in _PLACE
    }
