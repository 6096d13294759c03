"""Attempts that live and do not move, under a real supervisor: real processes, short limits."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from trainerd.contract.process import identify, is_alive

SCRIPTS = Path(__file__).parents[2] / "support" / "scripts"
BEATING = SCRIPTS / "beating.py"
LIMIT_S = 2.0
ONCE = {"budget": 1}


def drop(bench, name, how, *arguments, script=BEATING, **fields):
    command = [sys.executable, str(script), how, *arguments]
    values = {"stall_timeout": LIMIT_S, "restart": ONCE, "resources": {"cpus": 0}}
    bench.drop(name, "", command=command, **(values | fields))


def log_of(bench, name, rank=0):
    return bench.state.run(name).rank_log(rank).read_text()


@pytest.mark.slow
def test_every_kind_of_standing_still_is_found_shown_and_ended(bench):
    """All at once, and beside them a slow job that moves: it alone is left alone, and finishes."""
    bench.start()
    kinds = ["gil", "deadlock", "sigstop", "queue"]
    for kind in kinds:
        drop(bench, kind, kind)
    drop(bench, "peer", "peer", nproc=2)
    drop(bench, "slow", "slow", "6")
    for kind in [*kinds, "peer"]:
        job = bench.wait_state(kind, "parked")
        assert job["last_outcome"]["kind"] == "stalled", (kind, job["last_outcome"])
        assert "nothing moved for" in job["last_outcome"]["reason"]
        assert "attempt 1 is stalled" in log_of(bench, kind)
    assert bench.wait_state("slow", "finished")["attempt"] == 1
    # Where the interpreter itself answered, the very line is in the log and in the evidence.
    for kind in ["gil", "deadlock", "queue"]:
        assert "Current thread" in log_of(bench, kind)
        evidence = bench.outcomes(kind)[0]["evidence"]
        assert any(f"({BEATING}:" in line for line in evidence), evidence
    assert "T (stopped)" in log_of(bench, "sigstop")
    assert any("T (stopped)" in line for line in bench.outcomes("sigstop")[0]["evidence"])
    assert "Current thread" in log_of(bench, "peer", rank=0)
    assert "T (stopped)" in log_of(bench, "peer", rank=1)


def test_a_plain_command_that_says_nothing_is_judged_only_where_its_spec_gives_a_time(bench):
    bench.start()
    drop(bench, "judged", "silent")
    drop(bench, "trusted", "silent", stall_timeout="auto")
    assert bench.wait_state("judged", "parked")["last_outcome"]["kind"] == "stalled"
    assert bench.job("trusted")["state"] == "running"


@pytest.mark.slow
def test_a_supervisor_that_was_stopped_for_long_ends_nobody(bench):
    """It knows nothing of that time."""
    supervisor = bench.start()
    drop(bench, "slow", "slow", "7")
    bench.wait_running("slow")
    supervisor.send_signal(signal.SIGSTOP)
    try:
        bench.wait_for(lambda: _step(bench, "slow") >= 4, "the job to move on")
    finally:
        supervisor.send_signal(signal.SIGCONT)
    assert bench.wait_state("slow", "finished")["attempt"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["stall.shown", "stall.recorded"])
def test_a_stall_is_ended_by_the_supervisor_after_the_one_that_saw_it(bench, failpoint):
    """Killed between the decision and the deed: the next one knows what is missing."""
    supervisor = bench.start(failpoints=f"{failpoint}=kill@1")
    drop(bench, "still", "deadlock")
    rank = identify(bench.wait_running("still")["pids"][0])
    bench.wait_for(lambda: supervisor.poll() is not None, "the supervisor to die")
    assert is_alive(rank)
    bench.start()
    job = bench.wait_state("still", "parked")
    assert (job["last_outcome"]["kind"], job["attempt"]) == ("stalled", 1)
    assert not is_alive(rank)


def _step(bench, name):
    from trainerd.contract.heartbeat import read_heartbeat

    beat = read_heartbeat(bench.state.run(name).attempt(1).heartbeat(0))
    return beat.step if beat is not None else -1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sessions_that_stand_still_show_where(bench):
    """The same with torch: an interpreter lock that is never let go, a deadlock, a loader that never
    answers."""
    bench.start()
    script = SCRIPTS / "stalling.py"
    for kind in ["gil", "deadlock", "loader", "sigstop"]:
        drop(
            bench,
            kind,
            kind,
            script=script,
            stall_timeout=40.0,  # four imports of torch at once must not look like a stall
            restart={"budget": 9, "backoff": {"initial": 999, "max": 999}},
        )
    for kind in ["gil", "deadlock", "loader", "sigstop"]:
        bench.wait_state(kind, "backing-off", limit_s=180)
        (ending,) = bench.outcomes(kind)
        assert ending["kind"] == "stalled", (kind, ending)
        if kind != "sigstop":
            assert "Current thread" in log_of(bench, kind)
            assert f'File "{script}"' in log_of(bench, kind)
