"""A small job whose attempts are killed or stopped, and what can be seen of it and of its standby."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from shutil import which

from tests.support import waiting
from trainerd.cli.client import Client
from trainerd.contract.paths import RunPaths, StatePaths
from trainerd.contract.records import RanksRecord, read
from trainerd.errors import TrainerdError

LIMIT_S = 150.0
AT_ORDINARY_PRIORITY = (
    ("setpriv", "--bounding-set=-sys_nice") if os.geteuid() == 0 and which("setpriv") else ()
)
"""Begins the command of a program whose standbys are ready soon on a busy machine too.

They are prepared at the lowest priority where that can be undone.
"""
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


def start_exec(folder: Path, script: str, **fields) -> subprocess.Popen:
    """Start `trainerd exec` on a script in a folder; attempts follow one another at once."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(script)
    spec = {
        "name": "ant",
        "command": [sys.executable, "train.py"],
        "restart": {"backoff": {"initial": 0.02, "max": 0.05}},
        **fields,
    }
    (folder / "ant.json").write_text(json.dumps(spec))
    environ = {  # without a folder for compiled code: the run has one
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TORCHINDUCTOR_", "TRITON_"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "trainerd", "exec", "ant.json", "--state", "state"], cwd=folder, env=environ
    )


def spec(folder: Path, name: str, *words: str, **fields) -> str:
    """Return the spec of a job that runs a script of the folder, and saves at each step."""
    document = {
        "name": name,
        "command": [sys.executable, *words],
        "workdir": str(folder),
        "standby": "auto",
        "checkpoint": {"every": {"steps": 1, "epochs": 1}},
    }
    return json.dumps(document | fields)


@contextlib.contextmanager
def supervised(folder: Path, *options: str, prefix: tuple[str, ...] = ()):
    """Have a supervisor of the folder's `jobs` while the context lasts."""
    supervisor = subprocess.Popen(
        [*prefix, sys.executable, "-m", "trainerd", "run", "--jobs", "jobs", "--state", "state", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        supervisor.terminate()
        supervisor.wait(60)


def wait_for(condition, what: str, program: subprocess.Popen | None = None, *, limit_s: float = LIMIT_S):
    """Return what `condition` returns once it is true; fail at once if `program` has ended before."""

    def look():
        found = condition()
        is_over = program is not None and program.poll() is not None
        assert found or not is_over, f"exec has ended with {program.returncode} before {what}"
        return found

    return waiting.wait_for(look, what, limit_s=limit_s)


def run_of(folder: Path) -> RunPaths:
    return StatePaths(folder / "state").run("ant")


def steps(folder):
    """Return who made each step, and when."""
    lines = (folder / "steps").read_text().splitlines() if (folder / "steps").exists() else []
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


def rank(folder, attempt):
    record = read(run_of(folder).attempt(attempt).ranks, RanksRecord)
    return record.processes[0].pid if record is not None else None


def standby_words(folder):
    with contextlib.suppress(TrainerdError, OSError), Client(StatePaths(folder / "state")) as client:
        return client.get_job("ant").standby or ""
    return ""


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


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
