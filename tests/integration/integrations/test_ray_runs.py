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

from tests.support.training_runs import OF_A_JOB, result_of
from trainerd.contract import records
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        find_spec("ray") is None, reason="ray is not installed: pip install -c constraints.txt '.[ray]'"
    ),
]

JOB = Path(__file__).with_name("ray_job.py")
LIMIT_S = 800.0
KILLED_AT, DRAINED_AT, STEPS = 8, 9, 18


@pytest.fixture(scope="module")
def runs() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of the experiments, and what Ray said of each: one cluster runs all of them."""
    # The paths of Ray's sockets are too long below the folder of pytest.
    folder = Path(tempfile.mkdtemp(prefix="tr-"))
    (folder / "ray").mkdir()
    variables = {
        **{name: each for name, each in os.environ.items() if not name.startswith(("TRAINERD_", "RAY_"))},
        **OF_A_JOB,
        "HOME": str(folder),  # Ray keeps a token there
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.2",
    }
    experiments = folder / "runs"
    experiments.mkdir()
    command = [sys.executable, str(JOB), str(experiments), "undisturbed", "struck"]
    try:
        with (folder / "log").open("w") as log:
            driver = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
            try:
                code = driver.wait(LIMIT_S)
            finally:
                driver.kill()
                driver.wait()
        said = (folder / "log").read_text()
        assert code == 0, said[-6000:]
        lines = [line for line in said.splitlines() if line.startswith("RESULT ")]
        results = [json.loads(line.partition(" ")[2]) for line in lines]
        yield experiments, {each["case"]: each for each in results}
    finally:
        end_all(str(folder))
        shutil.rmtree(folder)


def end_all(folder: str) -> None:
    """End what a driver that failed has left: its processes have the folder in their environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RAY_TMPDIR") == folder:
                process.send_signal(signal.SIGKILL)


def computed(folder: Path, rank: int, attempt: int) -> list[int]:
    """Return the number of each step that a rank computed in an attempt at the struck run."""
    lines = (folder / "struck-steps" / f"steps-{rank}").read_text().splitlines()
    found = [tuple(map(int, line.split())) for line in lines]
    return [step for number, step in found if number == attempt]


def resume_of(folder: Path, attempt: int) -> dict[str, Any]:
    """Return the resume record of an attempt, which its last step copied."""
    return json.loads((folder / "struck-steps" / f"resume-{attempt}.json").read_text())


def test_a_killed_worker_and_a_notice_change_nothing_in_the_run(runs):
    folder, _ = runs
    assert result_of(folder / "struck" / "trainerd") == result_of(folder / "undisturbed" / "trainerd")


def test_a_killed_worker_costs_the_steps_since_the_checkpoint_and_the_resume_is_exact(runs):
    folder, _ = runs
    for rank in range(2):
        assert computed(folder, rank, 1)[-1] == KILLED_AT
        assert 0 < computed(folder, rank, 2)[0] <= KILLED_AT
    resume = resume_of(folder, 2)
    assert (resume["verdict"], resume["reasons"], resume["differing"]) == ("exact", [], 0)


def test_a_notice_costs_no_step_and_no_failure(runs):
    folder, _ = runs
    run = RunPaths(folder / "struck" / "trainerd")
    for rank in range(2):
        before, after = (computed(folder, rank, attempt) for attempt in (2, 3))
        assert [*before, *after] == list(range(before[0], STEPS)), "each step once"
        assert DRAINED_AT in before
        assert after
        outcome = records.read(run.attempt(2).outcome(rank), OutcomeRecord)
        assert outcome is not None
        assert outcome.kind == "drained"
        assert outcome.detail[0].startswith("Ray Train: preemption")
    # No step is run again, so there may be nothing to compare with; that is said, and nothing else.
    assert {reason["kind"] for reason in resume_of(folder, 3)["reasons"]} <= {"no-witness"}
    drained, after = ((folder / "struck-steps" / f"node-{attempt}").read_text() for attempt in (2, 3))
    assert drained != after, "Ray starts nothing on a node that is being taken"


def test_ray_has_the_checkpoints_with_their_scores_and_no_copy_of_the_data(runs):
    folder, results = runs
    for said in results.values():
        assert said["metrics"] == results["undisturbed"]["metrics"]
        assert set(said["metrics"]) == {"accuracy", "step", "epoch"}
        assert said["metrics"]["step"] == STEPS
        assert len(said["kept"]) == 2, "num_to_keep of Ray deletes Ray's own names alone"
        newest = Path(said["checkpoint"])
        own = folder / said["case"] / "trainerd" / "checkpoints" / "-".join(newest.name.split("-")[:2])
        files = [path for path in newest.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert path.samefile(own / path.relative_to(newest))
