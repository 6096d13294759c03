"""Scenarios: short files that say what is trained, what strikes where, and what must come of it.

what: a rank is killed in the middle of a step
strikes:
  - {fault: rank-sigkill, step: 7, phase: backward}
expect: {endings: [killed, finished], lost_steps: 4}
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from chaos.faults import REGISTRY
from chaos.rendezvous import PHASES, Point
from chaos.workloads import SCENARIO_SIZES, Workload

FOLDER: Final = Path(__file__).parent / "scenarios"
_STEP_PHASES: Final = ("batch", "backward", "stepped")


class ScenarioError(Exception):
    """A scenario file cannot be used; the message says file, field and remedy."""


@dataclass(frozen=True)
class Planned:
    """One fault of a scenario.

    Attributes:
        fault: Its name.
        step: The step in progress when it strikes, from 1; None is chosen by the seed.
        phase: Of that step.
        rank: Which rank it strikes.
        settled: Whether a save in the background is waited for first, so that what may be lost is exact.
    """

    fault: str
    step: int | None = None
    phase: str = "batch"
    rank: int = 0
    settled: bool = True


@dataclass(frozen=True)
class Expected:
    """What must come of a scenario, beyond the invariants.

    Attributes:
        state: Of the job in the end.
        endings: How the attempts are judged, in order; None is any that the faults allow.
        lost_steps: Steps that one interruption may cost at most; None is the interval.
        is_equal: Whether the run must come out as if it had not been disturbed.
    """

    state: str = "finished"
    endings: tuple[str, ...] | None = None
    lost_steps: int | None = None
    is_equal: bool = True


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    Attributes:
        name: The file's stem.
        what: One sentence.
        path: The file.
        workload: What is trained.
        strikes: The faults, each once.
        spec: Fields of the job's spec that differ.
        failpoints: ``<attempt>:<failpoints>`` for the ranks of one attempt.
        disk_bytes: Size of a filesystem of its own for the run; None shares the disk.
        needs_root: Whether only root can runner it.
        expected: What must come of it.
    """

    name: str
    what: str
    path: Path
    workload: Workload
    strikes: tuple[Planned, ...]
    spec: dict[str, Any] = field(default_factory=dict)
    failpoints: str = ""
    disk_bytes: int | None = None
    expected: Expected = field(default_factory=Expected)

    @property
    def needs_root(self) -> bool:
        return self.disk_bytes is not None

    @property
    def plays_alone(self) -> bool:
        """Whether it disturbs every job of its supervisor."""
        return any(REGISTRY[planned.fault].hits_all_jobs for planned in self.strikes)

    def points(self, seed: int) -> list[Point]:
        """Return where ranks must stop, one point a fault; what is left to chance comes from the seed."""
        chance = random.Random(f"{seed}/{self.name}")
        free = list(range(2, self.workload.steps))
        points = []
        for number, planned in enumerate(self.strikes):
            step, phase = planned.step, planned.phase
            if step is None:
                step, phase = free.pop(chance.randrange(len(free))), chance.choice(_STEP_PHASES)
            points.append(Point(f"{number}-{planned.fault}", step, phase, planned.rank))
        return points


def load_all(folder: Path = FOLDER) -> list[Scenario]:
    """Load every scenario of a folder, by name.

    Raises:
        ScenarioError: One of them cannot be used.
    """
    return [load(path) for path in sorted(folder.glob("*.yaml"))]


def load(path: Path) -> Scenario:
    """Load one scenario.

    Raises:
        ScenarioError: It cannot be used.
    """
    try:
        return _from_dict(path, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise ScenarioError(f"{path}: {error}") from error


def _from_dict(path: Path, content: dict[str, Any]) -> Scenario:
    size = dict(content.pop("workload", {}))
    workload = dataclasses.replace(SCENARIO_SIZES[size.pop("name", "tiny")], **size)
    expected = dict(content.pop("expect", {}))
    if "endings" in expected:
        expected["endings"] = tuple(expected["endings"])
    strikes = tuple(_planned(one, workload) for one in content.pop("strikes", []))
    return Scenario(
        name=path.stem,
        what=content.pop("what"),
        path=path,
        workload=workload,
        strikes=strikes,
        expected=Expected(**expected),
        **content,
    )


def _planned(content: dict[str, Any], workload: Workload) -> Planned:
    planned = Planned(**content)
    if planned.fault not in REGISTRY:
        raise ValueError(f"there is no fault {planned.fault!r}; `python -m chaos --list` names them")
    if planned.phase not in PHASES:
        raise ValueError(f"there is no phase {planned.phase!r}; there are {', '.join(PHASES)}")
    if planned.rank >= workload.ranks:
        raise ValueError(f"there is no rank {planned.rank} among {workload.ranks}")
    return planned
