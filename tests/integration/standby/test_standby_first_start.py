"""A first attempt begins in the standby of a job that has ended: under a supervisor, or from exec to exec."""

import os
import pty
import signal
import subprocess
import sys

import psutil
import pytest
from standby_jobs import (
    AT_ORDINARY_PRIORITY,
    SCRIPT,
    cmdline,
    leftovers,
    rank,
    spec,
    standby_words,
    steps,
    supervised,
    wait_for,
)

from trainerd.contract.paths import StatePaths
from trainerd.contract.records import ExitRecord, RanksRecord, read

SECOND = SCRIPT.replace("lr=0.01", "lr=float(sys.argv[1])")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "second.py").write_text(SECOND)
    yield tmp_path
    wait_for(lambda: not leftovers(tmp_path), "the end of every process")


def is_warm(folder, job, attempt):
    """Return whether an attempt that runs began in a standby."""
    ranks = StatePaths(folder / "state").run(job).attempt(attempt).ranks
    return b"warm_program" in cmdline(wait_for(lambda: read(ranks, RanksRecord), f"{job}").processes[0].pid)


def ended(folder, job, attempt):
    exits = StatePaths(folder / "state").run(job).attempt(attempt).exit
    return wait_for(lambda: read(exits, ExitRecord), f"the end of {job}").ranks[0].exit_code


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_job_begins_in_the_standby_of_one_that_has_finished_and_an_edited_spec_in_its_own(folder):
    (folder / "wait").touch()
    (folder / "jobs" / "ant.json").write_text(spec(folder, "ant", "train.py"))
    (folder / "one.toml").write_text("[limits]\nmax_jobs = 1\n")
    with supervised(folder, "--config", "one.toml", prefix=AT_ORDINARY_PRIORITY):
        wait_for(lambda: steps(folder), "the first step")
        wait_for(lambda: standby_words(folder).startswith("ready"), "the standby")
        assert not is_warm(folder, "ant", 1)
        # The spec is edited: the attempt is drained, and the next one has other arguments.
        (folder / "jobs" / "ant.json").write_text(spec(folder, "ant", "train.py", "--of-no-effect"))
        wait_for(lambda: rank(folder, 2), "attempt 2")
        assert is_warm(folder, "ant", 2)
        wait_for(lambda: standby_words(folder).startswith("ready"), "the next standby")
        # It waits for the one slot, and starts at the moment in which ant has finished.
        (folder / "jobs" / "bee.json").write_text(spec(folder, "bee", "second.py", "0.02"))
        (folder / "wait").unlink()
        assert ended(folder, "ant", 2) == 0
        (folder / "wait").touch()
        assert is_warm(folder, "bee", 1)
        (folder / "wait").unlink()
        assert ended(folder, "bee", 1) == 0
        shim_log = StatePaths(folder / "state").run("bee").attempt(1).shim_log.read_text()
        assert "the standby is not used" not in shim_log
    cold = folder / "cold"
    cold.mkdir()
    (folder / "weights.pt").rename(cold / "warm.pt")
    subprocess.run([sys.executable, folder / "second.py", "0.02"], cwd=cold, env=plain(cold), check=True)
    assert (cold / "warm.pt").read_bytes() == (cold / "weights.pt").read_bytes(), "bit for bit"


def plain(folder):
    return dict(os.environ) | {"TRAINERD_RUN_DIR": str(folder / "run")}


def exec_in_terminal(folder, *words, terminal=True, **environ):
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*AT_ORDINARY_PRIORITY, sys.executable, "-m", "trainerd", "exec", *words, "--state", "state"],
        cwd=folder,
        stdin=its if terminal else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "said").open("w"),
        env=dict(os.environ) | environ,
        start_new_session=True,
    )
    os.close(its)
    return process, ours


def run_until_ready(folder, *words, **environ):
    """Run a job until its standby is ready, and end it as Ctrl-C does."""
    (folder / "wait").touch()
    process, terminal = exec_in_terminal(folder, *words, **environ)
    wait_for(lambda: standby_words(folder).startswith("ready"), "the standby")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(120) == 85
    os.close(terminal)
    (folder / "wait").unlink()
    return (folder / "said").read_text()


def parked(folder):
    """Return the prepared shims that wait for the next exec, by the pid of their standby."""
    standbys = [int(pid) for pid in leftovers(folder) if b"warm_program" in cmdline(pid)]
    return {pid: psutil.Process(pid).ppid() for pid in standbys}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_next_exec_at_a_terminal_begins_in_the_process_that_the_one_before_left_ready(folder):
    (folder / "ant.json").write_text(spec(folder, "ant", "train.py"))
    assert "a process stays ready for the next `trainerd exec` for 15 min" in run_until_ready(
        folder, "ant.json"
    )
    (standby,) = parked(folder)
    (folder / "train.py").write_text(SCRIPT.replace("lr=0.01", "lr=0.02"))
    (folder / "wait").touch()
    process, terminal = exec_in_terminal(folder, "ant.json")
    try:
        assert is_warm(folder, "ant", 2)
        assert rank(folder, 2) == standby, "it is that process"
        (folder / "wait").unlink()
        assert process.wait(120) == 0
    finally:
        process.kill()
        os.close(terminal)
        for shim in parked(folder).values():  # of attempt 2, if its standby was ready
            os.kill(shim, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_process_that_was_left_ready_ends_when_it_is_asked_to(folder):
    (folder / "ant.json").write_text(spec(folder, "ant", "train.py"))
    run_until_ready(folder, "ant.json")
    ((_, shim),) = parked(folder).items()
    assert b"trainerd-standby" in cmdline(shim), "as `ps` shows it"
    os.kill(shim, signal.SIGTERM)
    wait_for(lambda: not leftovers(folder), "its end")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "how", [{"terminal": False}, {"SLURM_JOB_ID": "7"}], ids=["no terminal", "an engine"]
)
def test_nothing_is_left_behind_without_a_user_at_a_terminal(folder, how):
    (folder / "ant.json").write_text(spec(folder, "ant", "train.py"))
    said = run_until_ready(folder, "ant.json", **how)
    assert "stays ready" not in said
    wait_for(lambda: not leftovers(folder), "the end of every process")
