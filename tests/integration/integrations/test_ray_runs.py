"""Ray Train on a real cluster of this machine: a killed worker, and a node that is about to be taken."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.training_runs import REPOSITORY, result_of
from trainerd.contract import records
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        find_spec("ray") is None, reason="ray is not installed: pip install -c constraints.txt '.[ray]'"
    ),
]

JOB = Path(__file__).with_name("ray_job.py")
LIMIT_S = 500.0
STEPS = 18


@pytest.fixture(scope="module")
def runs() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of the experiments, and what Ray said of each: one cluster runs all of them."""
    # The paths of Ray's sockets are too long below the folder of pytest.
    folder = Path(tempfile.mkdtemp(prefix="tr-"))
    (folder / "ray").mkdir()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TRAINERD_", "RAY_"))},
        "PYTHONPATH": f"{REPOSITORY / 'daemon'}:{REPOSITORY}",
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder),  # Ray keeps a token there
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.2",
    }
    experiments = folder / "runs"
    experiments.mkdir()
    command = [sys.executable, str(JOB), str(experiments), "undisturbed", "killed", "drained"]
    try:
        with (folder / "log").open("w") as log:
            driver = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
            code = driver.wait(LIMIT_S)
        said = (folder / "log").read_text()
        assert code == 0, said[-6000:]
        lines = [line for line in said.splitlines() if line.startswith("RESULT ")]
        results = [json.loads(line.partition(" ")[2]) for line in lines]
        yield experiments, {each["case"]: each for each in results} | {"said": said}
    finally:
        end_all(str(folder))
        shutil.rmtree(folder)


def end_all(folder: str) -> None:
    """End what a driver that failed has left: every process of its cluster has its folder in the environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RAY_TMPDIR") == folder:
                process.send_signal(signal.SIGKILL)


def computed(folder: Path, case: str, rank: int) -> list[tuple[int, int]]:
    """Return the attempt and the number of each step that a rank computed, also of those done again."""
    lines = (folder / f"{case}-steps" / f"steps-{rank}").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines]


def resume_of(folder: Path, case: str) -> dict[str, Any]:
    return json.loads(next((folder / case).glob("trainerd/attempts/*2/resume.json")).read_text())


def test_a_killed_worker_costs_the_steps_since_the_checkpoint_and_the_run_is_exact(runs):
    folder, _ = runs
    assert result_of(folder / "killed" / "trainerd") == result_of(folder / "undisturbed" / "trainerd")
    for rank in range(2):
        steps = [step for _, step in computed(folder, "killed", rank)]
        assert len(steps) > STEPS, "some were computed twice"
    resume = resume_of(folder, "killed")
    assert (resume["verdict"], resume["reasons"], resume["differing"]) == ("exact", [], 0)


def test_a_notice_costs_no_step_and_no_failure_and_the_run_is_exact(runs):
    folder, _ = runs  # with max_failures=0
    assert result_of(folder / "drained" / "trainerd") == result_of(folder / "undisturbed" / "trainerd")
    for rank in range(2):
        attempts, steps = zip(*computed(folder, "drained", rank), strict=True)
        assert steps == tuple(range(STEPS)), "each step once"
        assert set(attempts) == {1, 2}
    run = RunPaths(folder / "drained" / "trainerd")
    for rank in range(2):
        outcome = records.read(run.attempt(1).outcome(rank), OutcomeRecord)
        assert outcome is not None
        assert outcome.kind == "drained"
        assert "Ray Train: preemption" in " ".join(outcome.detail)
    assert resume_of(folder, "drained")["reasons"] == []


def test_ray_has_the_checkpoints_with_their_scores_and_no_copy_of_the_data(runs):
    folder, results = runs
    for case in ("undisturbed", "killed", "drained"):
        said = results[case]
        assert said["metrics"] == results["undisturbed"]["metrics"]
        assert set(said["metrics"]) == {"accuracy", "step", "epoch"}
        assert said["metrics"]["step"] == STEPS
        assert len(said["kept"]) == 2, "num_to_keep of Ray deletes Ray's own names alone"
        own = folder / case / "trainerd" / "checkpoints"
        newest = Path(said["checkpoint"])
        files = [path for path in newest.rglob("*") if path.is_file()]
        assert files
        for path in files:
            # Two names of one file.
            twin = own / newest.name.partition("-")[0] / path.relative_to(newest)
            assert path.stat().st_nlink == 2, twin
