"""A job that is killed again and again goes on in a standby process, and ends bit-equal."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from trainerd.cli.client import Client
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import RanksRecord, read
from trainerd.contract.resume_record import read_resume
from trainerd.errors import TrainerdError

LIMIT_S = 150.0
KILLS = 2
STEPS = 200
WAITS_FROM = 10

SCRIPT = f"WAITS_FROM = {WAITS_FROM}\n" + textwrap.dedent(
    """
    import os, sys, time
    import torch
    import trainerd

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    data = torch.utils.data.TensorDataset(torch.randn(200, 8))
    loader = torch.utils.data.DataLoader(data, shuffle=True)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        for epoch in session.epochs(1):
            for number, (batch,) in enumerate(session.batches(loader)):
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                optimizer.step()
                with open("steps", "a") as file:
                    print(os.getpid(), time.time(), file=file)
                time.sleep(0.02)  # as long as the copy of a boundary in memory takes, or about that
                while number >= WAITS_FROM - 1 and os.path.exists("wait"):
                    time.sleep(0.01)
    torch.save(model.state_dict(), "weights.pt")
    """
)


MODES = {
    "cold": {"standby": "off", "checkpoint": {"every": {"steps": 1, "epochs": 1}}},
    "warm": {"standby": "auto", "checkpoint": {"every": {"steps": 1, "epochs": 1}}},
    "warm, from memory": {
        "standby": "auto",
        "checkpoint": {"every": {"steps": "never", "seconds": "never", "epochs": 1}, "memory": "auto"},
        "env": {"TRAINERD_MEMORY_SHARE": "1e9"},  # these steps are shorter than a copy is worth
    },
}


def job(folder: Path, mode: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    spec = {
        "name": "ant",
        "command": [sys.executable, "train.py"],
        "restart": {"backoff": {"initial": 0.02, "max": 0.05}},
        **MODES[mode],
    }
    (folder / "ant.json").write_text(json.dumps(spec))
    return subprocess.Popen(
        [sys.executable, "-m", "trainerd", "exec", "ant.json", "--state", "state"], cwd=folder
    )


def wait_for(condition, what):
    deadline_s = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"{what} did not come in {LIMIT_S:g} s"
        time.sleep(0.05)
    return found


def steps(folder):
    """Return who made each step, and when."""
    lines = (folder / "steps").read_text().splitlines() if (folder / "steps").exists() else []
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


def rank(folder, attempt):
    record = read(StatePaths(folder / "state").run("ant").attempt(attempt).ranks, RanksRecord)
    return record.processes[0].pid if record is not None else None


def standby_words(folder):
    with contextlib.suppress(TrainerdError, OSError), Client(StatePaths(folder / "state")) as client:
        return client.get_job("ant").standby or ""
    return ""


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


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_goes_on_in_its_standby_after_each_kill_and_ends_bit_equal(tmp_path):
    took_s, weights = {}, set()
    for mode in MODES:
        folder, is_warm = tmp_path / mode.replace(", ", "-").replace(" ", "-"), mode != "cold"
        process = job(folder, mode)
        (folder / "wait").touch()
        try:
            took_s[mode] = []
            for attempt in range(1, KILLS + 1):
                took_s[mode].append(kill_and_time(folder, attempt, waits_for_standby=is_warm))
                assert (b"warm_program" in cmdline(rank(folder, attempt + 1))) == is_warm
                resumed = read_resume(StatePaths(folder / "state").run("ant").resume)
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


def leftovers(folder):
    """Return processes whose working folder or command line lies in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and str(folder) in f"{(entry / 'cwd').readlink()} {cmdline(entry.name)!r}"
            ):
                found.append(entry.name)
    return found
