"""`trainerd exec` as process 1 of a container: another user, a read-only root, no HOME, podman and runc."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support import containers
from tests.support.containers import Container
from tests.support.training_runs import REPOSITORY, result_of
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.service.foreground import DRAIN_MARGIN_S

GRACE_S = 3.0
EXEC = ("python", "-m", "trainerd", "exec", "/mnt/tiny.json")
CONTAINERFILE = REPOSITORY / "docs" / "engines" / "Containerfile"
ENTRYPOINT = json.loads(re.search(r"^ENTRYPOINT (.*)$", CONTAINERFILE.read_text(), re.MULTILINE)[1])
STATE = ("--state", "/mnt/state")
KILLED = 137

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.podman,
    pytest.mark.timeout(400),
    pytest.mark.skipif(containers.why_not() is not None, reason=str(containers.why_not())),
]


@pytest.fixture(scope="module", autouse=True)
def podman():
    if (said := containers.refusal()) is not None:
        pytest.skip(said)


@pytest.fixture
def folder(tmp_path):
    """The one folder that containers keep, and that their user may write."""
    kept = tmp_path / "kept"
    kept.mkdir()
    kept.chmod(0o777)
    spec(kept)
    return kept


def spec(folder: Path, *, step_ms: int = 60, **fields: object) -> None:
    tiny = "/src/jobs/examples/tiny/train.py"
    command = ["python", tiny, "--epochs", "3", "--batches", "20", "--step-ms", str(step_ms)]
    document = {
        "command": [sys.executable, *command[1:]],
        "checkpoint": {"every": {"steps": 5, "epochs": 1}},
        "grace": GRACE_S,
        "restart": {"budget": 1, "backoff": {"initial": 0.02, "max": 0.05}},
        **fields,
    }
    (folder / "tiny.json").write_text(json.dumps(document))


def finish(folder: Path, state: str) -> None:
    with Container(folder, *EXEC, "--state", state) as container:
        assert container.end() == 0, container.output


def test_a_stop_drains_and_the_next_container_on_the_volume_goes_on_exactly(folder):
    with Container(folder, *EXEC, *STATE) as container:
        container.wait_for("epoch 1 of 3")
        began_s = time.monotonic()
        container.signal("TERM")
        assert container.end() == DRAINED, container.output
        assert time.monotonic() - began_s < GRACE_S + DRAIN_MARGIN_S, (
            "what the manifests leave, without their rest"
        )
        assert "saved step-" in container.output
    finish(folder, "/mnt/state")
    finish(folder, "/mnt/undisturbed")
    run, undisturbed = (StatePaths(folder / name).run("tiny").root for name in ("state", "undisturbed"))
    assert result_of(run) == result_of(undisturbed)


def test_sigkill_to_the_shim_ends_its_rank_and_the_second_attempt_finishes(folder):
    with Container(folder, *EXEC, *STATE) as container:
        container.wait_for("epoch 1 of 3")
        (shim,) = container.host_pids("trainerd.shim")
        os.kill(shim, signal.SIGKILL)
        assert container.end() == 0, container.output
        assert "--- attempt 2 started" in container.output
    result_of(StatePaths(folder / "state").run("tiny").root)


def test_a_rank_that_ignores_the_signal_is_killed_after_the_grace_of_the_job(folder):
    deaf = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
    spec(folder, command=["sh", "-c", deaf])
    with Container(folder, *EXEC, *STATE) as container:
        container.wait_for("deaf")
        began_s = time.monotonic()
        container.signal("TERM")
        assert container.end() == DRAINED, container.output
        assert GRACE_S * 0.9 < time.monotonic() - began_s < GRACE_S + 10


@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_process_1_loses_no_signal_of_its_first_moment(name, folder):
    """The kernel keeps a signal from process 1 that has its default action there, unless it is blocked.

    The interpreter starts before a line of ours runs: the entry point of the image blocks them.
    """
    spec(folder, grace=60)  # torch is imported in it
    with Container(folder, *ENTRYPOINT, *EXEC, *STATE) as container:
        first = container.wait_until_python()
        os.kill(first, getattr(signal, f"SIG{name}"))
        assert container.end() == DRAINED, container.output


def test_a_shell_as_process_1_keeps_the_signal_to_itself(folder):
    words = " ".join((sys.executable, *EXEC[1:], *STATE))
    with Container(folder, "sh", "-c", f"{words}; exit") as container:
        container.wait_for("epoch 1 of 3")
        container.signal("TERM")
        container.wait_for("epoch 2 of 3")
        container.signal("KILL")
        assert container.end() == KILLED


def test_without_a_folder_for_state_the_message_names_it(folder):
    with Container(folder, *EXEC) as container:
        assert container.end() == 1, container.output
        assert "/.trainerd" in container.output or "/mnt" in container.output
        assert "Read-only file system" in container.output
        assert "Traceback" not in container.output


def test_without_a_folder_for_temporary_files_the_end_says_so(folder):
    spec(folder, workdir="/")  # Python would take the one of the spec
    with Container(folder, *EXEC, *STATE, has_tmp=False) as container:
        assert container.end() == 1, container.output
        assert "temporary" in container.output
