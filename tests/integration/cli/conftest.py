"""The real command line against a real server, behind which stands a supervisor that is told what to be."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.fake_control import MNIST, NOW_S, FakeControl, job, served
from trainerd.cli.main import group
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import StatePaths

COLUMNS = 100


@pytest.fixture(autouse=True)
def _fixed_surroundings(monkeypatch, tmp_path):
    monkeypatch.setattr(SystemClock, "wall_s", lambda _: NOW_S)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("TRAINERD_STATE", raising=False)
    monkeypatch.chdir(tmp_path)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def state(tmp_path) -> StatePaths:
    """The state folder, in the place where verbs look for it by themselves."""
    folder = tmp_path / ".trainerd"
    folder.mkdir()
    return StatePaths(folder)


@pytest.fixture
def jobs_dir(tmp_path) -> Path:
    folder = tmp_path / "jobs"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def control(state, jobs_dir) -> FakeControl:
    """A supervisor that is not running yet."""
    return FakeControl(
        MNIST,
        job(
            "cifar",
            "parked",
            attempt=5,
            reason="5 attempts without progress: ModuleNotFoundError: torchvision",
        ),
        job("later", "backing-off", attempt=1, retry_at_wall_s=NOW_S + 98, reason="crashed at step 3"),
        job("queue", "queued", attempt=0, reason="waits for 2 GPUs: mnist has them"),
        state_dir=state.root,
        jobs_dir=jobs_dir,
    )


@pytest.fixture
def supervisor(control, state):
    """The same, running."""
    with served(control, state.socket):
        yield control


@pytest.fixture
def trainerd():
    """Runs the command line: `trainerd("ps", "--json")`."""

    def run(*words: object, columns: int | None = COLUMNS, code: int = 0):
        width = None if columns is None else str(columns)
        result = CliRunner(env={"COLUMNS": width}).invoke(group, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def trainerd_json(trainerd):
    """Runs a verb with --json and reads what it prints, refusing what strict JSON lacks."""

    def run(*words: object, code: int = 0):
        return json.loads(trainerd(*words, "--json", code=code).stdout, parse_constant=pytest.fail)

    return run
