"""The supervisor dies, at any moment; no job notices, and nothing runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

from tests.support.daemon_bench import ENDLESS, OBEDIENT, script
from trainerd.contract.process import identify
from trainerd.contract.signals import SECOND_AFTER_S

SLOW = "while ! test -e go; do sleep 0.02; done; exit 7"
"""Runs until it is told to go, then exits with 7."""

MORE_JOBS = 6


def test_a_running_job_does_not_notice_and_its_true_exit_code_is_collected(bench):
    bench.start()
    bench.drop("ant", script("ant", SLOW), restart={"budget": 1})
    before = bench.wait_running("ant")
    bench.kill()
    bench.start()
    after = bench.wait_running("ant")
    assert (after["pids"], after["shim_pid"]) == (before["pids"], before["shim_pid"])
    (bench.work / "go").touch()
    bench.wait_state("ant", "parked")
    assert "exited with 7" in bench.outcomes("ant")[0]["reason"]
    assert bench.starts("ant") == 1


def test_a_job_that_ends_while_there_is_no_supervisor_is_judged_by_the_next(bench):
    bench.start()
    bench.drop("ant", script("ant", "while ! test -e go; do sleep 0.02; done; exit 0"))
    before = bench.wait_running("ant")
    rank = identify(before["pids"][0])
    bench.kill()
    (bench.work / "go").touch()
    bench.wait_for(lambda: identify(rank.pid) != rank, "the rank to end")
    bench.start()
    assert bench.wait_state("ant", "finished")["attempt"] == 1
    assert bench.starts("ant") == 1


@pytest.mark.parametrize(
    "point",
    [
        "journal.decided=kill@2",
        pytest.param("journal.committed=kill@1", marks=pytest.mark.slow),
        pytest.param("journal.committed=kill@2", marks=pytest.mark.slow),
        "journal.committed=kill@3",
        pytest.param("journal.committed=kill@4", marks=pytest.mark.slow),
        pytest.param("record.synced=kill@1", marks=pytest.mark.slow),
        "record.synced=kill@2",
        "launch.recorded=kill",
        "shim.spawned=kill",
    ],
)
def test_a_supervisor_killed_on_the_way_to_an_attempt_is_followed_by_one_that_finishes_it(bench, point):
    """Each durable act on the way from a spec to a finished attempt: it runs to its end exactly once."""
    bench.drop("ant", script("ant", "sleep 0.3; echo done >> ant.ends; exit 0"))
    bench.start(failpoints=point, is_ready=False)
    for number in range(MORE_JOBS):
        # Events that come close together share a commit, so the last one meant may need another job.
        with contextlib.suppress(subprocess.TimeoutExpired):
            bench.supervisor.wait(10)
            break
        bench.drop(f"more-{number}", "exit 0")
    assert bench.supervisor.returncode == -signal.SIGKILL
    bench.start()
    bench.wait_state("ant", "finished")
    assert (bench.work / "ant.ends").read_text().split() == ["done"]
    assert bench.starts("ant") == 1


def test_a_draining_job_is_drained_by_the_next_supervisor(bench):
    bench.start()
    bench.drop("ant", script("ant", f"trap 'touch asked; sleep 0.5; exit 0' TERM; {ENDLESS}"))
    before = bench.wait_running("ant")
    bench.post("/v1/jobs/ant/stop")
    bench.kill()
    bench.start()
    job = bench.wait_state("ant", "stopped")
    assert job["attempt"] == before["attempt"]
    assert bench.starts("ant") == 1


def test_a_job_that_waits_goes_on_waiting_and_is_launched_once(bench):
    bench.start()
    backoff = {"budget": 3, "backoff": {"initial": 1.0, "max": 1.0}}
    bench.drop("ant", script("ant", "test $(wc -l < ant.starts) -ge 2 && exit 0; exit 1"), restart=backoff)
    bench.wait_state("ant", "backing-off")
    bench.kill()
    bench.start()
    bench.wait_state("ant", "finished")
    assert bench.starts("ant") == 2


def test_a_stopped_job_stays_stopped(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    bench.post("/v1/jobs/ant/stop")
    bench.wait_state("ant", "stopped")
    bench.kill()
    bench.start()
    assert bench.job("ant")["state"] == "stopped"


def test_a_spec_removed_while_there_is_no_supervisor_drains_its_job(bench):
    bench.start()
    spec = bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    bench.kill()
    spec.unlink()
    bench.start()
    bench.wait_gone("ant")
    assert bench.starts("ant") == 1


def test_a_queued_job_whose_spec_is_gone_is_not_started(bench):
    """Nothing is started before the folder has been looked at."""
    cpus = len(os.sched_getaffinity(0))
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT), resources={"cpus": cpus})
    bench.wait_running("ant")
    spec = bench.drop("bee", script("bee", "exit 0"))
    bench.wait_state("bee", "queued")
    bench.kill()
    os.kill(rank_pid(bench, "ant"), signal.SIGKILL)
    spec.unlink()
    bench.start()
    bench.wait_gone("bee")
    assert bench.starts("bee") == 0


def rank_pid(bench, name: str) -> int:
    newest = max((bench.state.root / "runs" / name / "attempts").iterdir())
    return json.loads((newest / "ranks.json").read_text())["processes"][0]["pid"]


def test_without_its_journal_a_supervisor_finds_what_runs(bench):
    """A damaged journal is moved aside by a person; nothing runs twice."""
    bench.start()
    bench.drop("ant", script("ant", SLOW.replace("exit 7", "exit 0")))
    before = bench.wait_running("ant")
    bench.kill()
    for path in bench.state.root.glob("journal.sqlite3*"):
        path.unlink()
    bench.start()
    assert bench.wait_running("ant")["pids"] == before["pids"]
    (bench.work / "go").touch()
    bench.wait_state("ant", "finished")
    assert bench.starts("ant") == 1


def test_sigterm_drains_all_and_the_next_supervisor_resumes_them(bench):
    bench.start()
    for name in ("ant", "bee"):
        bench.drop(name, script(name, f"trap 'touch {name}.asked; exit 0' TERM; {ENDLESS}"))
    for name in ("ant", "bee"):
        bench.wait_running(name)
    assert bench.stop() == 0
    assert (bench.work / "ant.asked").exists()
    assert (bench.work / "bee.asked").exists()
    assert not bench.state.socket.exists()
    bench.start()
    for name in ("ant", "bee"):
        assert bench.wait_running(name)["attempt"] == 2


def test_a_second_signal_hurries(bench):
    """The ranks are told a second time, which means "now"."""
    bench.start()
    body = "n=0; trap 'n=$((n+1)); touch asked.$n; test $n -ge 2 && exit 0' TERM; " + ENDLESS
    bench.drop("ant", script("ant", body), grace=60)
    bench.wait_running("ant")
    bench.supervisor.send_signal(signal.SIGINT)
    bench.wait_file("asked.1")
    time.sleep(SECOND_AFTER_S)  # before that it would be the same request
    bench.supervisor.send_signal(signal.SIGINT)
    assert bench.supervisor.wait(15) == 0
    assert (bench.work / "asked.2").exists()


def test_a_second_supervisor_on_the_same_folder_names_the_first(bench):
    first = bench.start()
    second = subprocess.run(
        bench.command(),
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == 1
    assert f"process {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert bench.answers()
