"""A compiled model that is killed goes on without compiling again, and ends bit-equal."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest
import standby_jobs
from standby_jobs import rank, run_of, standby_words, start_exec

from trainerd.contract.compiled_code import record_path, this_machine
from trainerd.contract.records import ExitRecord, read

LIMIT_S = 280.0
FIELDS = {"standby": "off", "checkpoint": {"every": {"steps": 1}}}

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


wait_for = functools.partial(standby_jobs.wait_for, limit_s=LIMIT_S)


def first_steps(folder: Path) -> list[dict]:
    path = folder / "first-steps"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
    program = start_exec(folder, SCRIPT, **FIELDS)
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
    program = start_exec(folder, SCRIPT, **FIELDS | {"standby": standby})
    run = run_of(folder)
    with ending(program):
        wait_for(lambda: len(first_steps(folder)) == 1, "the first step", program)
        wait_for(lambda: record_path(run.compiled / this_machine()).exists(), "the record", program)
        if standby == "auto":
            wait_for(lambda: standby_words(folder).startswith("ready"), "the standby", program)
        (folder / "pool").unlink()
        os.kill(rank(folder, 1), signal.SIGKILL)
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
    program = start_exec(folder, SCRIPT, **FIELDS)
    run = run_of(folder)
    with ending(program):
        wait_for(lambda: len(first_steps(folder)) == 1, "the first step", program)
        wait_for(lambda: record_path(run.compiled / this_machine()).exists(), "the record", program)
        libraries = list((run.compiled / this_machine() / "inductor").glob("*/*.main.so"))
        assert libraries
        for path in libraries:
            (folder / "empty").touch()
            (folder / "empty").replace(path)  # the rank has the former file mapped
        os.kill(rank(folder, 1), signal.SIGKILL)
        (folder / "wait").unlink()
        assert program.wait(LIMIT_S) == 0
    assert len(first_steps(folder)) == 2
    assert all(path.stat().st_size > 0 for path in libraries)
    assert weights(folder) == undisturbed
