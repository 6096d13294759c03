"""Runs of training scripts in processes of their own, and what tells whether two of them are equal."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.rank_server import RankServer
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = REPOSITORY / "jobs" / "examples" / "tiny" / "train.py"
HARD_LOOP = REPOSITORY / "tests" / "support" / "scripts" / "hard_loop.py"
TINY_WITH_COPIES = HARD_LOOP.with_name("tiny_with_copies.py")
PYTHONPATH = os.pathsep.join((str(REPOSITORY / "daemon"), str(REPOSITORY)))
OF_A_JOB = {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
"""Variables of a job that runs a script of this repository, for its spec."""
_RUN_LIMIT_S = 60
FORK_SERVER = RankServer("torch._dynamo")  # which torch.optim imports
"""For all tests of this process, with which it ends: torch is imported once for them."""


@dataclass(frozen=True)
class Ending:
    """How one attempt ended."""

    code: int
    output: str


@dataclass(frozen=True)
class Result:
    """What a finished run left: equal results are equal to the last bit."""

    files: dict[str, str]
    rows: tuple[dict[str, Any], ...]
    reports: tuple[dict[str, Any], ...]


def train(
    run_dir: Path, *arguments: object, script: Path = TINY, failpoints: str = "", **environment: object
) -> Ending:
    """Run one attempt without a supervisor, in a process that has torch already, and wait for its end."""
    with tempfile.NamedTemporaryFile("r", prefix="trainerd-test-", suffix=".log") as output:
        rank = FORK_SERVER.launch(
            script,
            [*map(str, arguments)],
            training_environment(run_dir, failpoints=failpoints, **environment),
            Path(output.name),
        )
        try:
            code = rank.wait(_RUN_LIMIT_S)
        finally:
            rank.send_signal(signal.SIGKILL)
        return Ending(code, output.read())


def training_environment(run_dir: Path, *, failpoints: str = "", **environment: object) -> dict[str, str]:
    """Return the environment of an attempt: this one's, with one thread, so that sums have one order."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRAINERD_")}
    return {
        **clean,
        "OMP_NUM_THREADS": "1",
        "TRAINERD_RUN_DIR": str(run_dir),
        "TRAINERD_FAILPOINTS": failpoints,
        **{name: str(value) for name, value in environment.items()},
    }


def has_done_step(heartbeat: Path, step: int) -> bool:
    """Tell whether a rank has resumed, if it had to, and finished a step."""
    with contextlib.suppress(OSError):
        beat = read_heartbeat(heartbeat)
        return beat is not None and beat.resumed_step >= 0 and beat.step >= step
    return False


def result_of(run_dir: Path) -> Result:
    """Return what a finished run left; asserts that it has finished."""
    run = RunPaths(run_dir)
    assert run.finished.exists(), "the run has not finished"
    final = CheckpointStore.of_run(run).checkpoints()[-1]
    history = read_history(run.metrics)
    files = {entry.name: entry.digest for entry in final.manifest.files}
    return Result(files, history.rows, history.reports)
