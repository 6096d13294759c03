"""Under torchrun, a SIGTERM to the whole process group saves and the next launch goes on; torchrun itself
exits 1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.rank_runs import RANKS_LOOP, free_port
from tests.support.training_runs import PYTHONPATH, result_of, training_environment
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.paths import RunPaths

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(700)]

LIMIT_S = 200


def launch(run, log, *arguments, max_restarts=0):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        str(max_restarts),
        "--master-port",
        str(free_port()),
    ]
    environment = training_environment(run, PYTHONPATH=PYTHONPATH)
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, str(RANKS_LOOP), "--ddp", *arguments],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def ended(process):
    """Wait for the end of a launch and return its code; nothing of it is left behind."""
    try:
        return process.wait(LIMIT_S)
    finally:
        if process.poll() is None:
            process.terminate()  # it ends its ranks then, which SIGKILL would leave behind
            process.wait(LIMIT_S)


def wait_for_step_6(run, log, launched):
    deadline_s = time.monotonic() + LIMIT_S
    page = RunPaths(run).attempt(1).heartbeat(0)
    while True:
        beat = read_heartbeat(page) if page.exists() else None
        if beat is not None and beat.step >= 6:
            break
        assert launched.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.005)


def test_a_group_sigterm_under_torchrun_saves_and_the_next_launch_is_exact(tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    first = launch(run, log, "--step-ms", "50", "--workers", "1")
    try:
        wait_for_step_6(run, log, first)
        os.killpg(first.pid, signal.SIGTERM)
    finally:
        ended(first)
    newest = CheckpointStore.of_run(RunPaths(run)).checkpoints()[-1]
    assert newest.manifest.reason == "drain", log.read_text()
    assert ended(launch(run, log)) == 0, log.read_text()
    whole = tmp_path / "whole"
    assert ended(launch(whole, log)) == 0, log.read_text()
    assert result_of(run) == result_of(whole)


def test_ranks_that_torchrun_restarts_after_a_drain_stay_drained(tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    first = launch(run, log, "--step-ms", "50", max_restarts=1)
    try:
        wait_for_step_6(run, log, first)
        workers = subprocess.run(
            ["pgrep", "-P", str(first.pid), "-f", RANKS_LOOP.name], capture_output=True, text=True, check=True
        )
        os.kill(int(workers.stdout.split()[0]), signal.SIGTERM)  # not torchrun, which would restart nothing
    finally:
        code = ended(first)
    said = log.read_text()
    assert code == 1, said
    assert said.count("torchrun restarts ranks that were drained") == 2, said
    checkpoints = CheckpointStore.of_run(RunPaths(run)).checkpoints()
    assert checkpoints[-1].manifest.reason == "drain", said
    assert ended(launch(run, log)) == 0, log.read_text()
