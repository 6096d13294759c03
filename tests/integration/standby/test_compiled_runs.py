"""A compiled model that is killed goes on without compiling again, and ends bit-equal."""

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
from trainerd.contract.compiled_code import record_path, this_machine
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import ExitRecord, RanksRecord, read
from trainerd.errors import TrainerdError

LIMIT_S = 280.0
STEPS = 12

SCRIPT = textwrap.dedent(
    """
    import json, os, sys, time
    import torch
    import trainerd
    from torch._dynamo.utils import counters

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    compiled = torch.compile(model)
    data = torch.utils.data.TensorDataset(torch.randn(48, 8))
    loader = torch.utils.data.DataLoader(data, 4, shuffle=True)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        began_s = time.monotonic()
        for epoch in session.epochs(1):
            for number, (batch,) in enumerate(session.batches(loader)):
                optimizer.zero_grad()
                compiled(batch).square().mean().backward()
                optimizer.step()
                if began_s is not None:
                    note = {
                        "pid": os.getpid(),
                        "seconds": time.monotonic() - began_s,
                        "folder": os.environ["TORCHINDUCTOR_CACHE_DIR"],
                        "triton": os.environ["TRITON_CACHE_DIR"],
                        "hits": counters["aot_autograd"]["autograd_cache_hit"],
                        "misses": counters["inductor"]["fxgraph_cache_miss"],
                        "pools": [],
                    }
                    if os.path.exists("pool"):
                        from torch._inductor.compile_worker.subproc_pool import SubprocPool
                        pool = SubprocPool(2)
                        note["pools"] = [pool.process.pid, pool.submit(os.getpid).result()]
                    with open("first-steps", "a") as file:
                        print(json.dumps(note), file=file, flush=True)
                    began_s = None
                while number >= 3 and os.path.exists("wait"):
                    time.sleep(0.01)
    torch.save(model.state_dict(), "weights.pt")
    """
)


def job(folder: Path, standby: str = "off", **fields) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    spec = {
        "name": "ant",
        "command": [sys.executable, "train.py"],
        "restart": {"backoff": {"initial": 0.02, "max": 0.05}},
        "checkpoint": {"every": {"steps": 1}},
        "standby": standby,
        **fields,
    }
    (folder / "ant.json").write_text(json.dumps(spec))
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TORCHINDUCTOR_", "TRITON_"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "trainerd", "exec", "ant.json", "--state", "state"], cwd=folder, env=environ
    )


def run_of(folder: Path):
    return StatePaths(folder / "state").run("ant")


def wait_for(condition, what: str, program: subprocess.Popen):
    deadline_s = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert program.poll() is None, f"exec has ended with {program.returncode} before {what}"
        assert time.monotonic() < deadline_s, f"{what} did not come within {LIMIT_S:g} s"
        time.sleep(0.02)
    return found


def first_steps(folder: Path) -> list[dict]:
    path = folder / "first-steps"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def standby_words(folder: Path) -> str:
    with contextlib.suppress(TrainerdError, OSError), Client(StatePaths(folder / "state")) as client:
        return client.get_job("ant").standby or ""
    return ""


@contextlib.contextmanager
def ending(program: subprocess.Popen):
    try:
        yield
    finally:
        if program.poll() is None:
            program.terminate()
            program.wait(60)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    program = job(folder)
    with ending(program):
        assert program.wait(LIMIT_S) == 0
    return weights(folder)


def weights(folder: Path) -> dict[str, bytes]:
    import torch

    state = torch.load(folder / "weights.pt")
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("standby", ["off", "auto"])
def test_a_killed_compiled_model_is_not_compiled_again(tmp_path, undisturbed, standby):
    """Its compile workers end with it."""
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "wait").touch()
    (folder / "pool").touch()
    program = job(folder, standby)
    run = run_of(folder)
    with ending(program):
        wait_for(lambda: len(first_steps(folder)) == 1, "the first step", program)
        wait_for(lambda: record_path(run.compiled / this_machine()).exists(), "the record", program)
        if standby == "auto":
            wait_for(lambda: standby_words(folder).startswith("ready"), "the standby", program)
        (folder / "pool").unlink()
        ranks = read(run.attempt(1).ranks, RanksRecord)
        os.kill(ranks.processes[0].pid, signal.SIGKILL)
        wait_for(lambda: read(run.attempt(1).exit, ExitRecord), "the end of the attempt", program)
        pools = first_steps(folder)[0]["pools"]
        assert len(pools) == 2
        assert all(is_gone(pid) for pid in pools)
        (folder / "wait").unlink()
        assert program.wait(LIMIT_S) == 0
    cold, warm = first_steps(folder)
    assert cold["folder"] == warm["folder"] == str(run.compiled / this_machine() / "inductor")
    assert (cold["hits"], warm["hits"], warm["misses"]) == (0, 1, 0)
    assert cold["misses"] > 0
    assert weights(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_library_that_a_death_has_torn_is_compiled_again(tmp_path, undisturbed):
    """Without the look at the files, each attempt would end at its first step."""
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "wait").touch()
    program = job(folder)
    run = run_of(folder)
    with ending(program):
        wait_for(lambda: len(first_steps(folder)) == 1, "the first step", program)
        wait_for(lambda: record_path(run.compiled / this_machine()).exists(), "the record", program)
        libraries = list((run.compiled / this_machine() / "inductor").glob("*/*.main.so"))
        assert libraries
        for path in libraries:
            (folder / "empty").touch()
            (folder / "empty").replace(path)  # the rank has the former file mapped
        os.kill(read(run.attempt(1).ranks, RanksRecord).processes[0].pid, signal.SIGKILL)
        (folder / "wait").unlink()
        assert program.wait(LIMIT_S) == 0
    assert len(first_steps(folder)) == 2
    assert all(path.stat().st_size > 0 for path in libraries)
    assert weights(folder) == undisturbed
