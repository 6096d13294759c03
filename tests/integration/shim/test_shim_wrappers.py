"""Below a shell: the process that trains is told to stop and waited for, and the shell is ended after it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from shim_workbench import runs, wait_for

from trainerd.contract.process import identify
from trainerd.contract.request_page import RequestPage

TRAINER = """
import os, signal, sys, time
from pathlib import Path
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.session_record import register_session
here = Path(os.environ["HERE"])
def stop(number, _):
    time.sleep(0.3)
    (here / "saved").write_text(str(number))
    sys.exit(85)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else stop)
register_session(AttemptPaths(Path(os.environ["ATTEMPT"])), rank=0, shim_pid=None)
(here / "trainer").write_text(str(os.getpid()))
while True: time.sleep(0.05)
"""


def launch(workbench, script, **options):
    """Start a shell script in which ``$TRAIN`` trains; return once it does, with the pid that does."""
    (workbench.here / "train.py").write_text(TRAINER)
    paths = workbench.launch(
        ("sh", "-c", script),
        TRAIN=f"{sys.executable} {workbench.here}/train.py",
        ATTEMPT=str(workbench.run.attempt(1).root),
        PYTHONPATH=os.environ.get("PYTHONPATH", ""),
        **options,
    )
    (pid,) = workbench.pids_in("trainer")
    return paths, pid


def saved(workbench):
    return (workbench.here / "saved").exists()


def test_a_session_below_a_shell_saves_and_the_shell_goes_on_to_its_end(workbench):
    paths, _ = launch(workbench, "$TRAIN; echo $? > after; exit 3")
    workbench.launcher.signal(paths, signal.SIGTERM)
    (rank,) = workbench.ended(paths).ranks
    assert (rank.exit_code, rank.signal) == (3, None)
    assert (workbench.here / "saved").read_text() == str(int(signal.SIGTERM))
    assert (workbench.here / "after").read_text() == "85\n"
    assert RequestPage(paths.requests).stop_signal() == signal.SIGTERM


def test_a_shell_that_goes_on_for_long_after_its_session_is_ended_with_what_it_has_started(workbench):
    paths, _ = launch(workbench, "$TRAIN; sleep 60 & echo $! > next; wait; true")
    workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert (record.ranks[0].signal, record.ranks[0].killed_by_shim) == (signal.SIGTERM, None)
    assert saved(workbench)
    assert not runs(*workbench.pids_in("next"))
    assert record.duration_s - record.stop_requested_s < 10, "the grace period is 30 s"


def test_a_session_that_does_not_leave_is_killed_with_its_shell_at_the_end_of_the_grace_period(workbench):
    paths, pid = launch(workbench, "$TRAIN deaf; true", grace_s=0.4)
    workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert (record.ranks[0].signal, record.ranks[0].killed_by_shim) == (signal.SIGKILL, "grace")
    assert not runs(pid)


@pytest.mark.parametrize("end", ["exit 0", "kill -9 $$"], ids=["well", "badly"])
def test_a_session_whose_shell_has_ended_is_not_killed(workbench, end):
    """One that ended well has put it into the background; after a bad end it saves, and leaves."""
    paths, pid = launch(workbench, f"$TRAIN & while [ ! -e trainer ]; do sleep 0.02; done; {end}")
    if end == "exit 0":
        wait_for(lambda: "trains on" in paths.shim_log.read_text(), "the end of the shell")
        assert runs(pid)
        assert not paths.exit.exists()
        workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert saved(workbench)
    assert not runs(pid)
    assert (record.stop_requested_s is not None) == (end == "exit 0")


def test_a_process_that_has_the_number_of_a_session_is_not_signalled_and_its_shell_is(workbench):
    paths, pid = launch(workbench, "$TRAIN; true")
    record = json.loads(paths.session(pid).read_text())
    assert record["process"]["start_ticks"] == identify(pid).start_ticks
    record["process"]["start_ticks"] -= 1
    paths.session(pid).write_text(json.dumps(record))
    workbench.launcher.signal(paths, signal.SIGTERM)
    (rank,) = workbench.ended(paths).ranks
    assert rank.signal == signal.SIGTERM
    assert not saved(workbench)


def test_a_trainer_that_a_shell_puts_into_the_background_is_awaited_before_its_session_is_open(workbench):
    paths, pid = launch(workbench, "nohup $TRAIN > /dev/null 2>&1 &")
    wait_for(lambda: "has opened a session" in paths.shim_log.read_text(), "the session")
    assert runs(pid)
    workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert saved(workbench)
    assert (record.ranks[0].exit_code, record.background_killed) == (0, 0)


def test_a_process_in_the_background_without_a_session_is_killed_when_the_grace_period_ends(workbench):
    script = "python -c 'import time; time.sleep(60)' & echo $! > child"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    paths = workbench.launch(("sh", "-c", script), grace_s=0.3, PATH=path)
    (pid,) = workbench.pids_in("child")
    wait_for(lambda: "waiting for a session" in paths.shim_log.read_text(), "the end of the shell")
    workbench.launcher.signal(paths, signal.SIGTERM)
    record = workbench.ended(paths)
    assert (record.ranks[0].exit_code, record.background_killed) == (0, 1)
    assert not runs(pid)
