"""What a supervisor makes of what another one left: jobs in every state, a death on the way, another boot."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.support.daemon_bench import ENDLESS, script
from trainerd.contract.process import identify

UNTIL_GO = "while ! test -e go; do sleep 0.02; done; exit 0"
AT_REST = {"cat": "stopped", "dog": "parked", "eel": "finished", "fox": "rejected"}


@pytest.mark.slow
def test_jobs_in_every_state_outlive_a_supervisor_that_dies_and_one_that_dies_while_it_recovers(bench):
    """Nobody's training notices, nothing that is at rest starts again, nothing runs twice."""
    bench.start(config="[limits]\nmax_jobs = 3\ncpus = 64\n")
    none = {"budget": 0}
    slow = {"budget": 9, "backoff": {"initial": 60, "max": 60}}
    bench.drop("dog", script("dog", "exit 3"), restart=none)
    bench.drop("eel", script("eel", "exit 0"))
    bench.write("fox", json.dumps({"command": ["no-such-program-anywhere"]}))
    bench.drop("gnu", script("gnu", "exit 4"), restart=slow)
    for name, state in {"dog": "parked", "eel": "finished", "fox": "rejected", "gnu": "backing-off"}.items():
        bench.wait_state(name, state)
    bench.drop("cat", script("cat", UNTIL_GO))
    bench.wait_running("cat")
    bench.post("/v1/jobs/cat/stop")
    bench.wait_state("cat", "stopped")
    bench.drop("ant", script("ant", UNTIL_GO), restart=none)
    bench.drop("bee", script("bee", f"trap 'touch asked; sleep 3; exit 0' TERM; {ENDLESS}"), grace=30)
    bench.drop("hen", script("hen", UNTIL_GO))
    before = {name: bench.wait_running(name) for name in ("ant", "bee", "hen")}
    bench.drop("imp", script("imp", "exit 0"))
    bench.wait_state("imp", "queued")
    bench.post("/v1/jobs/bee/stop")
    bench.wait_file("asked")
    bench.kill()

    for point in ("journal.decided=kill@1", "journal.committed=kill@1"):
        bench.start(failpoints=point, is_ready=False, config="[limits]\nmax_jobs = 3\ncpus = 64\n")
        assert bench.supervisor.wait(20) == -signal.SIGKILL

    bench.start(config="[limits]\nmax_jobs = 3\ncpus = 64\n")
    after = bench.wait_running("ant")
    assert after["pids"] == before["ant"]["pids"]
    for name, state in AT_REST.items():
        assert bench.job(name)["state"] == state
    bench.wait_state("gnu", "backing-off")
    assert bench.wait_state("bee", "stopped")["attempt"] == 1
    (bench.work / "go").touch()
    for name in ("ant", "hen", "imp"):
        bench.wait_state(name, "finished")
    names = ("ant", "bee", "cat", "dog", "eel", "gnu", "hen", "imp")
    assert {name: bench.starts(name) for name in names} == dict.fromkeys(names, 1)


@pytest.mark.slow
def test_after_a_reboot_strangers_are_left_alone_and_unfinished_jobs_go_on(bench):
    """Everybody is gone, the boot id is another, and the pids on record belong to somebody else by now."""
    bench.start(config="[limits]\ncpus = 64\n")
    for name in ("ant", "bee"):
        bench.drop(name, script(name, UNTIL_GO))
    bench.drop("cow", script("cow", "exit 0"))
    jobs = {name: bench.wait_running(name) for name in ("ant", "bee")}
    bench.wait_state("cow", "finished")
    bench.kill()
    for job in jobs.values():
        for pid in (job["shim_pid"], *job["pids"]):
            os.kill(pid, signal.SIGKILL)
        bench.wait_for(lambda job=job: identify(job["pids"][0]) is None, "the rank to be gone")
    strangers = [subprocess.Popen(["sleep", "1000"], start_new_session=True) for _ in range(2)]
    try:
        for name in jobs:
            attempt = bench.state.root / "runs" / name / "attempts" / "000001"
            for record, stranger in zip(("shim.json", "ranks.json"), strangers, strict=True):
                _rewrite(attempt / record, stranger.pid)
        bench.start(config="[limits]\ncpus = 64\n")
        for name in jobs:
            assert bench.wait_running(name, attempt=2)["attempt"] == 2
            assert "restarted" in bench.outcomes(name)[0]["reason"]
        assert [stranger.poll() for stranger in strangers] == [None, None]
        assert bench.job("cow")["attempt"] == 1
        (bench.work / "go").touch()
        for name in jobs:
            bench.wait_state(name, "finished")
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


def _rewrite(path, pid: int) -> None:
    """Make the processes on record those of an earlier boot, with numbers that strangers have now."""
    found = identify(pid)
    document = json.loads(path.read_text())
    for process in document.get("processes", [document.get("process")]):
        process |= {
            "pid": pid,
            "start_ticks": found.start_ticks,
            "boot_id": "11111111-2222-3333-4444-555555555555",
        }
    path.write_text(json.dumps(document))
