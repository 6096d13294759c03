"""Where the reference trainer and the harness meet: faults at an exact rank, step and phase.

The harness names points beforehand in ``points.json``. A rank that comes to one writes ``reached-<id>.json``
and waits for ``go-<id>.json``, in which the harness, having struck from outside, says what else to do. So a
fault from outside strikes at an exact place too, and is struck once: a point with an answer is passed without
a stop.

Standard library alone, and used by both sides.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE: Final = "CHAOS_POINTS"
"""Names the folder in which the two meet; no points without it."""

FAILPOINT_VARIABLE: Final = "CHAOS_FAILPOINTS"
"""``<attempt>:<failpoints>``: arms failpoints in one attempt alone."""

WAIT_LIMIT_S: Final = 120.0
"""So long a rank waits for its answer; then it goes on, and the scenario fails for lack of its fault."""

POLL_S: Final = 0.005

PHASES: Final = ("batch", "backward", "stepped", "evaluation", "epoch")
"""Of a step: its batch has come, its gradients are there, its weights are changed. Then those between
steps."""


@dataclass(frozen=True)
class Point:
    """A place in a run.

    Attributes:
        id: Unique in the run.
        step: The step in progress, from 1; between steps, the last one that is done.
        phase: One of `PHASES`.
        rank: Which rank.
    """

    id: str
    step: int
    phase: str = "batch"
    rank: int = 0


@dataclass(frozen=True)
class Arrival:
    """A rank that has come to a point and waits there."""

    point: str
    pid: int
    attempt: int
    monotonic_s: float


class Rendezvous:
    """The harness's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def name(self, points: list[Point]) -> None:
        """Say where ranks shall stop. Before the job starts."""
        _replace(self.folder / "points.json", [asdict(point) for point in points])

    def arrival(self, point: str) -> Arrival | None:
        """Return who waits at a point, None if no process has come yet."""
        try:
            return Arrival(**json.loads((self.folder / f"reached-{point}.json").read_text()))
        except FileNotFoundError:
            return None

    def answer(self, point: str, action: str = "go") -> None:
        """Let the rank go on, and do something itself if `action` names it."""
        _replace(self.folder / f"go-{point}.json", {"action": action})

    def is_answered(self, point: str) -> bool:
        return (self.folder / f"go-{point}.json").exists()


class Visitor:
    """A rank's side."""

    def __init__(self, folder: Path | None, *, rank: int, attempt: int) -> None:
        self._folder = folder
        self._attempt = attempt
        self._points: dict[tuple[int, str], list[str]] = {}
        if folder is None or not (folder / "points.json").exists():
            return
        for found in json.loads((folder / "points.json").read_text()):
            point = Point(**found)
            if point.rank == rank:
                self._points.setdefault((point.step, point.phase), []).append(point.id)

    def come_to(self, step: int, phase: str) -> str:
        """Stop here if the harness asked for it; return what it says then, or `go`."""
        action = "go"
        for point in self._points.get((step, phase), ()):
            assert self._folder is not None
            answer = self._folder / f"go-{point}.json"
            if answer.exists():
                continue
            here = Arrival(point, os.getpid(), self._attempt, time.monotonic())
            _replace(self._folder / f"reached-{point}.json", asdict(here))
            deadline_s = time.monotonic() + WAIT_LIMIT_S
            while not answer.exists() and time.monotonic() < deadline_s:
                time.sleep(POLL_S)
            if answer.exists():
                action = json.loads(answer.read_text())["action"]
        return action


def _replace(path: Path, content: Any) -> None:
    """Write a file whole. Nothing here must outlive the machine, so nothing is synced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content))
    draft.rename(path)
