"""A job that was stopped, edited and resumed goes on in the standby that was prepared before."""

import os
import subprocess
import sys

import pytest
from standby_jobs import (
    SCRIPT,
    cmdline,
    leftovers,
    rank,
    run_of,
    spec,
    standby_words,
    steps,
    supervised,
    wait_for,
)

from trainerd.contract.records import ExitRecord, read
from trainerd.shim.cgroup_place import find_places
from trainerd.supervisor.attempt.cgroups import why_no_memory

CAN_LIMIT = os.geteuid() == 0 and not why_no_memory(find_places())


def trainerd(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "trainerd", *words, "--state", str(folder / "state")],
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_was_stopped_and_edited_goes_on_in_the_standby_of_before(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "wait").touch()
    limit = {"resources": {"memory": "3GiB"}} if CAN_LIMIT else {}
    (tmp_path / "jobs" / "ant.json").write_text(spec(tmp_path, "ant", "train.py", **limit))
    with supervised(tmp_path):
        wait_for(lambda: steps(tmp_path), "the first step")
        wait_for(lambda: standby_words(tmp_path).startswith("ready"), "the standby")
        trainerd(tmp_path, "stop", "ant")
        run = run_of(tmp_path)
        wait_for(run.attempt(1).exit.exists, "the end of attempt 1")
        assert standby_words(tmp_path).startswith("ready"), "it is kept for what comes"
        edited = SCRIPT.replace("lr=0.01", "lr=0.02").replace(
            "import os, sys, time", "import os, sys, time, csv"
        )
        (tmp_path / "train.py").write_text(edited + "open('edited', 'w').close()\n")
        trainerd(tmp_path, "resume", "ant")
        after = wait_for(lambda: rank(tmp_path, 2), "attempt 2")
        assert b"warm_program" in cmdline(after)
        (tmp_path / "wait").unlink()
        wait_for((tmp_path / "edited").exists, "the end of the edited script")
        ended = wait_for(lambda: read(run.attempt(2).exit, ExitRecord), "the end of attempt 2")
        assert ended.ranks[0].exit_code == 0
        assert ended.memory_limit_bytes == (3 << 30 if CAN_LIMIT else None)
    wait_for(lambda: not leftovers(tmp_path), "the end of every process of the job")
