"""Files that vanish under a running supervisor, and records that no program of ours can have written."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.daemon_bench import ENDLESS, script
from trainerd.contract.process import identify

HOSTILE = """
import json, os, pathlib
folder = pathlib.Path(os.environ["TRAINERD_ATTEMPT_DIR"])
message = os.fsdecode(b"cannot decode img\\xff.png") + "\\x1b[2J" + "x" * 3_000_000
error = {"error_type": "ValueError", "error_message": message}
record = {"format": "trainerd.outcome/1", "kind": "exception", **error}
(folder / "outcome-00000.json").write_text(json.dumps(record))
(folder / "heartbeat-00000").write_bytes(os.urandom(4096))
raise SystemExit(1)
"""


def test_an_exception_whose_text_is_not_utf8_ends_no_supervisor(bench):
    bench.start()
    (bench.work / "hostile.py").write_text(HOSTILE)
    bench.drop("ant", f"exec {sys.executable} hostile.py", restart={"budget": 0})
    bench.drop("bee", script("bee", ENDLESS))
    bench.wait_state("ant", "parked")
    bench.wait_running("bee")
    (outcome,) = bench.outcomes("ant")
    assert "img\\xff.png\\x1b[2J" in outcome["reason"]
    assert bench.state.journal.with_name(bench.state.journal.name + "-wal").stat().st_size < 4_000_000
    bench.kill()
    bench.start()
    assert bench.job("ant")["state"] == "parked"
    bench.post("/v1/jobs/bee/stop")
    bench.wait_state("bee", "stopped")


@pytest.mark.slow
def test_a_job_whose_run_folder_is_deleted_is_not_started_beside_itself_and_can_be_stopped(bench):
    bench.start()
    bench.drop("ant", script("ant", ENDLESS), grace=5)
    before = bench.wait_running("ant")
    shutil.rmtree(bench.state.run("ant").root)
    bench.supervisor.send_signal(signal.SIGHUP)
    bench.wait_for(lambda: "supervisor.reloading" in bench.output.read_text(), "the reload")
    bench.wait_for(bench.answers, "the supervisor to answer")
    time.sleep(0.5)  # several looks at the attempt
    assert (bench.job("ant")["state"], bench.job("ant")["attempt"]) == ("running", 1)
    assert bench.starts("ant") == 1
    assert bench.post("/v1/jobs/ant/stop").status_code == 200
    bench.wait_state("ant", "stopped")
    assert all(identify(pid) is None for pid in before["pids"])
    assert bench.starts("ant") == 1


def test_a_journal_that_is_deleted_stops_decisions_and_says_so(bench):
    bench.start()
    bench.drop("ant", script("ant", ENDLESS))
    before = bench.wait_running("ant")
    aside = bench.root / "aside.sqlite3"
    bench.state.journal.rename(aside)
    answer = bench.post("/v1/jobs/ant/stop")
    assert answer.status_code == 503
    assert "deleted or replaced" in answer.json()["error"]
    assert "deleted or replaced" in bench.get("/v1/daemon")["journal_problem"]
    bench.drop("bee", script("bee", ENDLESS))
    time.sleep(0.5)
    assert bench.job("bee") is None
    assert identify(before["pids"][0]) is not None
    aside.rename(bench.state.journal)
    bench.wait_running("bee")
    assert bench.get("/v1/daemon")["journal_problem"] == ""
    assert bench.post("/v1/jobs/ant/stop").status_code == 200
    bench.wait_state("ant", "stopped")


def test_a_shim_says_what_it_is_and_follows_its_folder(bench):
    """It is found by its name, and records the exit where the folder lies when the attempt ends."""
    bench.start()
    bench.drop("ant", script("ant", "while ! test -e go; do sleep 0.02; done; exit 0"))
    shim = bench.wait_running("ant")["shim_pid"]
    title = Path(f"/proc/{shim}/cmdline").read_bytes().replace(b"\0", b" ")
    assert b"ant" in title
    assert b"000001" in title
    bench.kill()
    moved = bench.root / "moved"
    bench.state.root.rename(moved)
    (bench.work / "go").touch()
    bench.wait_for(lambda: identify(shim) is None or not _runs(shim), "the shim to leave")
    assert (moved / "runs/ant/attempts/000001/exit.json").exists()


def _runs(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_shim_whose_folder_is_gone_gives_up_soon(bench):
    bench.start()
    bench.drop("ant", script("ant", ENDLESS), grace=1)
    job = bench.wait_running("ant")
    bench.kill()
    shutil.rmtree(bench.state.root)
    os.kill(job["pids"][0], signal.SIGKILL)
    deadline_s = time.monotonic() + 30
    while _runs(job["shim_pid"]):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
