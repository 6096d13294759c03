"""`trainerd exec` twice on one state folder, as on two machines: with a boot id and a machine id of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.own_host import as_host, has_host_namespaces
from tests.support.training_runs import result_of
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import OutcomeRecord

TINY = Path(__file__).parents[3] / "jobs" / "examples" / "tiny"
LIMIT_S = 60.0

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(
        not has_host_namespaces(), reason="needs mount and UTS namespaces, and /etc/machine-id"
    ),
]


def spec(folder: Path) -> None:
    command = [sys.executable, str(TINY / "train.py"), "--epochs", "3", "--batches", "20", "--step-ms", "60"]
    document = {
        "command": command,
        "workdir": str(TINY),
        "checkpoint": {"every": {"steps": 5, "epochs": 1}},
        "grace": "5s",
    }
    (folder / "tiny.json").write_text(json.dumps(document))


def start(folder: Path, machine: str, *words: str, state: str = "state") -> subprocess.Popen:
    own = [sys.executable, "-m", "trainerd", "exec", "tiny.json", "--state", state, *words]
    return subprocess.Popen(
        as_host(folder, machine, own, has_own_name=False),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_of(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=LIMIT_S)
    return process.returncode, said


def test_a_machine_that_was_away_is_fenced_and_the_other_one_goes_on_exactly(tmp_path):
    spec(tmp_path)
    undisturbed = start(tmp_path, "n0", state="undisturbed")
    run = StatePaths(tmp_path / "state").run("tiny")
    first = start(tmp_path, "n1")
    family: list[psutil.Process] = []
    try:
        deadline_s = time.monotonic() + LIMIT_S
        while not (run.checkpoints / "last").exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        family = [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]
        for process in family:
            process.send_signal(signal.SIGSTOP)
        code, said = end_of(start(tmp_path, "n2"))
        assert (code, "another supervisor" in said) == (85, True), said
        code, said = end_of(start(tmp_path, "n2", "--takeover-after", "1s"))
        assert code == 0, said
        assert "may still run; it is fenced" in said
        assert "restarted" not in said
        for process in reversed(family):
            process.send_signal(signal.SIGCONT)
        code, said = end_of(first)
        assert (code, "has taken over" in said, "restarted" in said) == (1, True, False), said
        outcome = records.read(run.attempt(1).outcome(0), OutcomeRecord)
        assert outcome is not None
        assert outcome.kind == "fenced"
        assert end_of(undisturbed)[0] == 0
        assert result_of(run.root) == result_of(StatePaths(tmp_path / "undisturbed").run("tiny").root)
        assert end_of(start(tmp_path, "n2"))[0] == 0, "it is finished"
    finally:
        for process in family:
            with_pid = process.is_running()
            if with_pid:
                os.kill(process.pid, signal.SIGKILL)
        for process in (first, undisturbed):
            process.kill()
            process.communicate()
