"""A job that is killed again and again goes on in a standby process, and ends bit-equal."""

import os
import signal
import time
from pathlib import Path

import pytest
from standby_jobs import (
    LIMIT_S,
    SCRIPT,
    WAITS_FROM,
    cmdline,
    leftovers,
    rank,
    run_of,
    standby_words,
    start_exec,
    steps,
    wait_for,
)

from trainerd.contract.resume_record import read_resume

KILLS = 2
STEPS = 200

MODES = {
    "cold": {"standby": "off", "checkpoint": {"every": {"steps": 1, "epochs": 1}}},
    "warm": {"standby": "auto", "checkpoint": {"every": {"steps": 1, "epochs": 1}}},
    "warm, from memory": {
        "standby": "auto",
        "checkpoint": {"every": {"steps": "never", "seconds": "never", "epochs": 1}, "memory": "auto"},
        "env": {"TRAINERD_MEMORY_SHARE": "1e9"},  # these steps are shorter than a copy is worth
    },
}


def kill_and_time(folder, attempt, *, waits_for_standby):
    """Kill an attempt in its first steps; return when the next one has made its first, in seconds."""
    pid = wait_for(lambda: rank(folder, attempt), f"attempt {attempt}")
    wait_for(lambda: any(who == pid for who, _ in steps(folder)), f"a step of attempt {attempt}")
    wait_for(lambda: len(steps(folder)) >= WAITS_FROM, "the steps before it waits")
    if waits_for_standby:
        wait_for(lambda: standby_words(folder).startswith("ready"), "the standby")
    killed_s = time.time()
    os.kill(pid, signal.SIGKILL)
    after = wait_for(lambda: rank(folder, attempt + 1), f"attempt {attempt + 1}")
    first = wait_for(lambda: [at_s for who, at_s in steps(folder) if who == after], "its first step")
    return first[0] - killed_s


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_goes_on_in_its_standby_after_each_kill_and_ends_bit_equal(tmp_path):
    took_s, weights = {}, set()
    for mode, fields in MODES.items():
        folder, is_warm = tmp_path / mode.replace(", ", "-").replace(" ", "-"), mode != "cold"
        process = start_exec(folder, SCRIPT, **fields)
        (folder / "wait").touch()
        try:
            took_s[mode] = []
            for attempt in range(1, KILLS + 1):
                took_s[mode].append(kill_and_time(folder, attempt, waits_for_standby=is_warm))
                assert (b"warm_program" in cmdline(rank(folder, attempt + 1))) == is_warm
                resumed = read_resume(run_of(folder).resume)
                assert (resumed.attempt, resumed.step > 0) == (attempt + 1, True)
                assert resumed.source == ("memory" if "memory" in mode else "disk")
            if is_warm:
                wait_for(lambda folder=folder: standby_words(folder).startswith("ready"), "the next standby")
            (folder / "wait").unlink()
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()
            process.wait()
        assert len(steps(folder)) >= STEPS
        weights.add((folder / "weights.pt").read_bytes())
    print("SIGKILL to first new step, s:", took_s)
    assert len(weights) == 1, "each mode ends with the same weights"
    assert not leftovers_in_memory(tmp_path)
    wait_for(lambda: not leftovers(tmp_path), "the end of every process of the job")


def leftovers_in_memory(folder):
    """Return the places in memory of runs below a folder."""
    owners = Path(f"/dev/shm/trainerd-{os.geteuid()}").glob("*/.run")
    return [owner for owner in owners if owner.read_text().startswith(str(folder))]
