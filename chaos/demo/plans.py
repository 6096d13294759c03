"""What the demo can train, and when it strikes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

EXAMPLES: Final = Path(__file__).parents[2] / "jobs" / "examples"


@dataclass(frozen=True)
class Plan:
    """A job of the examples, cut to a length that one can watch.

    Attributes:
        example: Folder of the example.
        arguments: Of its train.py.
        every_steps: How often it checkpoints.
        kill_from_step: SIGKILL strikes at this step or soon after it, in mid-epoch.
        drain_from_step: SIGTERM likewise, in a later attempt.
    """

    example: str
    arguments: tuple[str, ...]
    every_steps: int
    kill_from_step: int
    drain_from_step: int

    @property
    def workdir(self) -> Path:
        return EXAMPLES / self.example

    def spec(self, name: str, *, source: str | None) -> str:
        """Return the example's own spec under another name, with these arguments."""
        spec: dict[str, Any] = copy.deepcopy(
            yaml.safe_load((self.workdir / "job.yaml").read_text(encoding="utf-8"))
        )
        chosen = ("--source", source) if source else ()
        spec["name"] = name
        spec["command"] = ["python", "train.py", *self.arguments, *chosen]
        spec["workdir"] = str(self.workdir)
        spec["checkpoint"]["every"] = {"steps": self.every_steps, "epochs": 1}
        spec["restart"]["backoff"] = {"initial": 1, "max": 5}
        return yaml.safe_dump(spec, sort_keys=False)


PLANS: Final = {
    # 30 steps an epoch, each less than half a second on one core.
    "resnet18": Plan(
        "mnist",
        ("--epochs", "2", "--batch-size", "16", "--train-size", "480", "--valid-size", "128"),
        every_steps=8,
        kill_from_step=12,
        drain_from_step=42,
    ),
    # 140 steps an epoch, each a few hundredths of a second.
    "small": Plan(
        "mnist",
        ("--model", "small", "--epochs", "3"),
        every_steps=20,
        kill_from_step=50,
        drain_from_step=190,
    ),
    "tiny": Plan(
        "tiny",
        ("--epochs", "2", "--batches", "20", "--step-ms", "100"),
        every_steps=5,
        kill_from_step=7,
        drain_from_step=22,
    ),
}
