"""Programs below shells, pipes and launchers, and sessions that no signal reaches, stop without loss."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from trainerd.contract.heartbeat import read_heartbeat

pytestmark = [pytest.mark.slow, pytest.mark.torch]

LIMIT_S = 240.0

TRAIN = """
import asyncio, signal, sys, threading, time
import torch, trainerd
KIND = sys.argv[1] if len(sys.argv) > 1 else ""
def train():
    with trainerd.session(every={"seconds": None, "epochs": None}) as session:
        if KIND == "replaced":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, lambda *_: None)
                signal.set_wakeup_fd(-1)
        model = torch.nn.Linear(4, 1)
        session.track(model=model)
        for _ in session.epochs(1):
            for step in session.steps(10_000):
                time.sleep(0.05)
                if step == 5 and KIND == "exit":
                    sys.exit(0)
if KIND == "thread":
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
else:
    train()
"""

WRAPPERS = {
    "script": ["bash", "run.sh"],
    "list": ["bash", "-c", "echo a; python train.py; echo b"],
    "pipe": ["bash", "-c", "python -u train.py 2>&1 | tee tee.log"],
    "call": ["python", "wrap.py", "python", "train.py"],
}


ENDINGS = {"script": 85, "list": 0, "pipe": 0, "call": 85}
"""What each command makes of its trainer's 85."""


def start(bench, commands):
    """Start a supervisor and jobs; return once each has made some steps."""
    (bench.work / "train.py").write_text(TRAIN)
    (bench.work / "run.sh").write_text("set -e\necho begins\npython train.py\necho ends\n")
    (bench.work / "wrap.py").write_text("import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))\n")
    bench.start(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name, command in commands.items():
        fields = {"command": command, "grace": 60, "restart": {"budget": 0}, "resources": {"cpus": 0.1}}
        bench.drop(name, "", **fields)
    for name in commands:
        page = bench.state.run(name).attempt(1).heartbeat(0)
        bench.wait_for(lambda page=page: has_stepped(page), f"{name} to train", limit_s=LIMIT_S)


def has_stepped(page):
    beat = read_heartbeat(page)
    return beat is not None and beat.step > 3


def stopped(bench, name):
    """Ask a job to stop; return how its attempt ended."""
    assert bench.post(f"/v1/jobs/{name}/stop").status_code == 200
    bench.wait_state(name, "stopped", limit_s=LIMIT_S)
    (outcome,) = bench.outcomes(name)
    return outcome


def test_a_stop_reaches_the_session_below_a_shell_a_pipe_and_a_launcher(bench):
    start(bench, WRAPPERS)
    for name, code in ENDINGS.items():
        outcome = stopped(bench, name)
        assert outcome["kind"] == "drained", outcome
        assert f"rank 0: exit code {code}" in outcome["evidence"], outcome
        chain = next(line for line in outcome["evidence"] if line.startswith("rank 0 trained in "))
        assert " > " in chain, outcome
        record = json.loads(bench.state.run(name).attempt(1).outcome(0).read_text())
        assert (record["kind"], record["step"]) == ("drained", outcome["step"])
    assert "ends" not in bench.state.run("script").rank_log(0).read_text()
    assert bench.state.run("list").rank_log(0).read_text().endswith("b\n")


def test_a_session_that_no_signal_reaches_hears_the_request_and_an_exit_with_0_is_no_end_of_it(bench):
    start(bench, {kind: ["python", "train.py", kind] for kind in ("replaced", "thread", "exit")})
    outcome, *_ = bench.wait_for(lambda: bench.outcomes("exit"), "the end of exit", limit_s=LIMIT_S)
    assert outcome["kind"] == "crashed", outcome
    assert "exited with 0 at step 5 without finishing" in outcome["reason"]
    for name in ("replaced", "thread"):
        outcome = stopped(bench, name)
        assert (outcome["kind"], outcome["step"] > 3) == ("drained", True), outcome
