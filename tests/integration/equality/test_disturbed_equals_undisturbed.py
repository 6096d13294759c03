"""Under a supervisor, a run that is disturbed equals one that nobody disturbed, bit for bit.

The tiny job, 3 epochs of 10 steps of 30 ms, is struck at steps read off its heartbeat: killed, drained by
every signal that asks for it, with the supervisor killed beside it, with and without loader workers.
"""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.support.daemon_bench import Bench
from tests.support.training_runs import TINY

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT

STRIKES = {
    "killed in the first step": [(1, KILL)],
    "killed in the middle of an epoch": [(6, KILL)],
    "killed at the last step of an epoch": [(10, KILL)],
    "killed in a later epoch": [(17, KILL)],
    "killed twice within one epoch": [(14, KILL), (16, KILL)],
    "drained by SIGTERM": [(6, TERM)],
    "drained by SIGINT": [(16, INT)],
    "killed, drained and killed": [(5, KILL), (12, TERM), (23, KILL)],
}
EVERYDAY = {"killed in the middle of an epoch", "drained by SIGTERM"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("equality")
    root.chmod(0o755)
    bench = Bench(root)
    bench.start()
    yield bench
    bench.clean_up()


def submit(bench, name, *, workers=0, step_ms=30):
    arguments = [sys.executable, str(TINY), "--step-ms", str(step_ms), "--workers", str(workers)]
    bench.drop(
        name,
        "",
        command=arguments,
        env={"OMP_NUM_THREADS": "1"},
        checkpoint={"every": {"steps": 4, "epochs": 1}, "keep_last": 2},
    )


@pytest.fixture(scope="module")
def undisturbed(bench):
    submit(bench, "undisturbed")
    return bench.finished("undisturbed")


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, id=name, marks=() if name in EVERYDAY else pytest.mark.slow)
        for number, name in enumerate(STRIKES)
    ],
)
def test_a_struck_job_equals_one_left_alone(bench, undisturbed, number):
    name = f"struck-{number}"
    strikes = list(STRIKES.values())[number]
    submit(bench, name)
    for step, how in strikes:
        os.kill(bench.pids_at_step(name, step)[0], how)
    assert bench.finished(name) == undisturbed
    kinds = [outcome["kind"] for outcome in bench.outcomes(name)]
    assert kinds == ["killed" if how == KILL else "drained" for _, how in strikes] + ["finished"]


@pytest.mark.slow
def test_loader_workers_change_nothing(bench, undisturbed):
    submit(bench, "workers", workers=2)
    os.kill(bench.pids_at_step("workers", 6)[0], KILL)
    os.kill(bench.pids_at_step("workers", 13)[0], TERM)
    assert bench.finished("workers") == undisturbed


@pytest.mark.slow
def test_training_does_not_notice_that_the_supervisor_was_killed(bench, undisturbed):
    submit(bench, "orphan", step_ms=400)  # long enough for a supervisor to start on a busy machine
    before = bench.pids_at_step("orphan", 2)[0]
    bench.kill()
    bench.start()
    assert bench.pids_at_step("orphan", 4)[0] == before
    assert bench.finished("orphan") == undisturbed
    assert [outcome["kind"] for outcome in bench.outcomes("orphan")] == ["finished"]


@pytest.mark.slow
def test_stopping_the_supervisor_drains_the_job_and_the_next_one_resumes_it(bench, undisturbed):
    submit(bench, "stopped", step_ms=200)  # long enough for a busy machine to bring the signal
    bench.pids_at_step("stopped", 12)
    assert bench.stop() == 0
    bench.start()
    assert bench.finished("stopped") == undisturbed
    outcomes = bench.outcomes("stopped")
    assert [outcome["kind"] for outcome in outcomes] == ["drained", "finished"]
    assert outcomes[0]["checkpoint"] is not None
