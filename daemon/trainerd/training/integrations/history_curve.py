"""What all trackers have in common: points that come from the metric history.

The history says of each step which value counts. A tracker that begins gets all points so far, from the
history; then each line that is appended becomes points. So what an attempt had in its buffers when it was
killed is not missing, and a step that is run again is there once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PLACE: Final = {"step", "epoch", "batch", "digest", "report"}


class HistoryCurve(ABC):
    """A tracker that follows the metric history of a run.

    Args:
        run_dir: The run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._history = RunPaths(run_dir).metrics
        self._is_begun = False

    def line(self, line: bytes) -> None:
        """Take a line that was appended to the history."""
        record = json.loads(line)
        if "format" in record or "resume" in record:
            self.begin()
            self._is_begun = True
            for step, values in self._so_far():
                self.add(step, values)
            self.begun()
        elif not self._is_begun:
            raise UserError("the metric history goes on in a file that did not begin")
        else:
            self.add(*_point(record))

    def close(self) -> None:
        """The attempt is over: write out what is buffered."""
        if self._is_begun:
            self._is_begun = False
            self.end()

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
