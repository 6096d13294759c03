"""Two ranks under a supervisor, with DistributedDataParallel: whoever is struck, the run equals one left
alone."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.support.daemon_bench import Bench
from tests.support.rank_runs import RANKS_LOOP
from tests.support.training_runs import OF_A_JOB
from trainerd.contract.resume_record import read_resume

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT

STRIKES = {
    "rank 0 killed": (KILL, (0,)),
    "rank 1 killed": (KILL, (1,)),
    "SIGTERM to rank 1": (TERM, (1,)),
    "SIGTERM to both": (TERM, (0, 1)),
    "SIGINT to rank 0": (INT, (0,)),
}
EVERYDAY = {"rank 1 killed"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    root.chmod(0o755)
    bench = Bench(root)
    bench.start()
    yield bench
    bench.clean_up()


def submit(bench, name, *, step_ms=20, env=None, **fields):
    bench.drop(
        name,
        "",
        command=[sys.executable, str(RANKS_LOOP), "--ddp", "--step-ms", str(step_ms)],
        nproc=2,
        env=OF_A_JOB | (env or {}),
        grace=30,
        **fields,
    )


@pytest.fixture(scope="module")
def undisturbed(bench):
    submit(bench, "undisturbed")
    return bench.finished("undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, id=name, marks=() if name in EVERYDAY else pytest.mark.slow)
        for number, name in enumerate(STRIKES)
    ],
)
def test_a_struck_job_of_two_ranks_equals_one_left_alone(bench, undisturbed, number):
    name = f"struck-{number}"
    signum, struck = list(STRIKES.values())[number]
    submit(bench, name)
    pids = bench.pids_at_step(name, 9, ranks=2)
    for rank in struck:
        os.kill(pids[rank], signum)
    assert bench.finished(name) == undisturbed
    kinds = [outcome["kind"] for outcome in bench.outcomes(name)]
    assert kinds == ["killed" if signum == KILL else "drained", "finished"]


@pytest.mark.slow
def test_stopping_the_supervisor_drains_both_ranks(bench, undisturbed):
    submit(bench, "stopped", step_ms=200)  # long enough for a busy machine to bring the signal
    bench.pids_at_step("stopped", 12, ranks=2)
    assert bench.stop() == 0
    bench.start()
    assert bench.finished("stopped") == undisturbed
    assert [outcome["kind"] for outcome in bench.outcomes("stopped")] == ["drained", "finished"]


@pytest.mark.slow
@pytest.mark.parametrize("struck", [(1,), (0, 1)], ids=str)
def test_a_job_of_two_ranks_that_keeps_copies_goes_on_from_the_copy_that_both_hold(
    bench, undisturbed, struck
):
    name = f"copied-{'-'.join(map(str, struck))}"
    submit(
        bench,
        name,
        step_ms=300,  # long enough for status to show a copy
        checkpoint={"every": {"steps": 1000, "epochs": 1000, "seconds": 1000}, "memory": "auto"},
        env={"TRAINERD_MEMORY_SHARE": "1e9"},
    )
    pids = bench.pids_at_step(name, 9, ranks=2)
    bench.wait_for(lambda: (bench.job(name)["memory_step"] or 0) > 0, "status to show the copy")
    for rank in struck:
        os.kill(pids[rank], KILL)
    assert bench.finished(name).files == undisturbed.files
    record = read_resume(bench.state.run(name).resume)
    assert (record.source, record.attempt) == ("memory", 2)
    assert [outcome["kind"] for outcome in bench.outcomes(name)] == ["killed", "finished"]
