"""`trainerd exec`: one job in the foreground, with the rules, the shims and the journal of the supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.daemon_bench import SUPERVISORS
from tests.support.fork_server import ForkedProcess
from tests.support.supervisor_server import COMMAND_LINE
from trainerd.contract.process import identify, is_alive

WAIT_S = 30.0
LOOK_S = 0.005
TINY = Path(__file__).parents[3] / "jobs" / "examples" / "tiny"

OBEDIENT = "echo up; trap 'exit 85' TERM; while :; do sleep 0.05; done"


class Foreground:
    """Runs `trainerd exec` in a folder, in processes that have imported what it needs already."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen | ForkedProcess | None = None
        self._out, self._err = output / "out", output / "err"

    def spec(self, script: str, **fields) -> Path:
        path = self.folder / "ant.json"
        backoff = {"budget": 2, "backoff": {"initial": 0.02, "max": 0.05}}
        path.write_text(
            json.dumps({"command": ["sh", "-c", script], "restart": backoff, "grace": 5, **fields})
        )
        return path

    def start(self, *words: object) -> None:
        self._empty_output()
        arguments = ["exec", *map(str, words)]
        self.process = SUPERVISORS.launch(
            COMMAND_LINE,
            arguments,
            dict(os.environ),
            self._out,
            command=[sys.executable, "-m", "trainerd", *arguments],
            errors=self._err,
            folder=self.folder,
        )

    def start_anew(self, *command: object) -> None:
        """Start any command instead, in an interpreter of its own."""
        self._empty_output()
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self.process = subprocess.Popen(list(map(str, command)), cwd=self.folder, stdout=out, stderr=err)

    def _empty_output(self) -> None:
        for path in (self._out, self._err):
            path.write_text("")

    def run(self, *words: object) -> tuple[int, str, str]:
        self.start(*words)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end; return its exit code and what it has said."""
        return self.process.wait(WAIT_S), self._out.read_text(), self._err.read_text()

    def wait_for_line(self, text: str) -> None:
        """Wait for a line of the ranks: what is awaited is bounded by the test's own timeout."""
        while text not in self._out.read_text():
            assert self.process.poll() is None, f"no line with {text!r}: {self._err.read_text()}"
            time.sleep(LOOK_S)

    def end(self, signum: int) -> tuple[int, str]:
        self.process.send_signal(signum)
        code, _, err = self.ended()
        return code, err


@pytest.fixture
def foreground(tmp_path, tmp_path_factory):
    foreground = Foreground(tmp_path, tmp_path_factory.mktemp("output"))
    yield foreground
    if foreground.process is not None and foreground.process.poll() is None:
        foreground.process.kill()
        foreground.process.wait()
    for path in tmp_path.glob("**/attempts/*/shim.json"):
        who = json.loads(path.read_text())["process"]
        found = identify(who["pid"])
        if found is not None and found.start_ticks == who["start_ticks"] and is_alive(found):
            os.kill(who["pid"], signal.SIGQUIT)


def test_a_job_that_finishes_exits_with_0_and_its_output_is_ours(foreground):
    foreground.spec("echo to-out; echo to-err >&2; printf unfinished")
    code, out, err = foreground.run("ant.json")
    assert code == 0
    assert "to-out\n" in out
    assert "to-err\n" in out
    assert out.endswith("unfinished")
    assert "trainerd: ant: finished: it exited with 0" in err
    assert "finished before" not in err
    # As a person starts it: what it imports is all there.
    foreground.start_anew(sys.executable, "-m", "trainerd", "exec", "ant.json", "--quiet")
    assert foreground.ended() == (0, "", "")


def test_a_job_that_crashes_is_tried_again_within_its_budget_and_then_exits_with_1(foreground):
    foreground.spec("echo try; exit 3")
    code, out, err = foreground.run("ant.json")
    assert (code, out.count("try\n")) == (1, 2)
    assert "2 attempts in a row made no progress" in err
    code, out, _ = foreground.run("ant.json")
    assert (code, out.count("try\n")) == (1, 2), "to run it again is to ask for another try"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": ["no-such-program"]}, "was not found"),
        ({"comand": "x"}, "did you mean 'command'"),
        ({"command": ["sh", "-c", "exit 93"]}, "93"),
    ],
    ids=["program", "spec", "by-itself"],
)
def test_what_can_never_run_exits_with_93(foreground, fields, words):
    foreground.spec("exit 0", **fields)
    code, _, err = foreground.run("ant.json", "--temporary")
    assert code == 93
    assert words in err
    assert not (foreground.folder / ".trainerd").exists()


def test_a_rank_that_the_job_does_not_have_is_refused(foreground):
    foreground.spec("exit 0", nproc=2)
    assert foreground.run("ant.json", "--temporary", "--rank", "2") == (
        93,
        "",
        "error: no rank 2 of ant\n  its ranks are 0 to 1\n",
    )


def test_asked_to_leave_with_nothing_saved_it_says_so_and_exits_with_1(foreground):
    foreground.spec(OBEDIENT)
    foreground.start("ant.json")
    foreground.wait_for_line("up")
    code, err = foreground.end(signal.SIGTERM)
    assert code == 1
    assert "nothing is saved" in err


def test_a_foreground_that_was_killed_disturbs_nothing_and_the_next_one_adopts(foreground):
    foreground.spec(OBEDIENT)
    foreground.start("ant.json", "--state", "kept")
    foreground.wait_for_line("up")
    foreground.process.kill()
    foreground.process.wait()
    foreground.start("ant.json", "--state", "kept")
    socket = foreground.folder / "kept" / "trainerd.sock"
    status = [sys.executable, "-m", "trainerd", "status", "ant", "--json", "--state", str(socket.parent)]

    def job() -> dict:
        answer = subprocess.run(status, capture_output=True, text=True, check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else {}

    deadline = time.monotonic() + WAIT_S
    while not (view := job()).get("pids"):
        assert time.monotonic() < deadline
    assert (view["attempt"], view["state"]) == (1, "running")
    reload = [sys.executable, "-m", "trainerd", "reload", "--state", str(socket.parent)]
    assert "not reloaded" in subprocess.run(reload, capture_output=True, text=True, check=False).stderr
    assert job()["state"] == "running"
    foreground.end(signal.SIGINT)


def test_a_state_folder_of_other_jobs_is_left_alone(foreground):
    foreground.spec("exit 0")
    assert foreground.run("ant.json", "--state", "kept")[0] == 0
    (foreground.folder / "bee.json").write_text((foreground.folder / "ant.json").read_text())
    code, _, err = foreground.run("bee.json", "--state", "kept")
    assert code == 1
    assert "that of other jobs: ant" in err


def test_a_finished_job_says_how_to_begin_a_new_run_and_that_keeps_the_old_one(foreground):
    foreground.spec("echo ran >> $TRAINERD_RUN_DIR/ran")
    assert foreground.run("ant.json")[0] == 0
    code, _, err = foreground.run("ant.json")
    assert (code, "to begin a new run: trainerd exec ant.json --fresh" in err) == (0, True)
    code, _, err = foreground.run("ant.json", "--fresh")
    assert code == 0
    assert "a new run begins; the one that was there is kept in" in err
    runs = foreground.folder / ".trainerd/exec/ant/runs"
    assert [(runs / each / "ran").read_text() for each in ("ant", "ant.old-1")] == ["ran\n", "ran\n"]
    assert (runs / "ant.old-1/journal.sqlite3").exists()


@pytest.mark.slow
@pytest.mark.torch
def test_a_training_job_that_is_drained_exits_with_85_and_goes_on_when_it_is_run_again(foreground):
    spec = foreground.folder / "tiny.json"
    command = ["python", str(TINY / "train.py"), "--epochs", "2", "--batches", "20", "--step-ms", "30"]
    spec.write_text(json.dumps({"command": command, "checkpoint": {"every": {"steps": 5}}}))
    foreground.start(spec)
    foreground.wait_for_line("epoch 1")
    code, err = foreground.end(signal.SIGUSR1)
    assert code == 85, err
    code, _, err = foreground.run(spec)
    assert code == 0, err
    outcomes = (foreground.folder / ".trainerd/exec/tiny/runs/tiny/finished.json").read_text()
    assert json.loads(outcomes)


@pytest.mark.slow
@pytest.mark.torch
def test_a_job_that_leaves_by_itself_twice_finishes_with_each_step_once(foreground):
    spec = foreground.folder / "tiny.json"
    command = ["python", str(TINY / "train.py"), "--epochs", "2", "--batches", "30", "--step-ms", "50"]
    spec.write_text(json.dumps({"command": command, "checkpoint": {"every": {"steps": 50}}}))
    for _ in range(2):
        code, _, err = foreground.run(spec, "--leave-every", "1s")
        assert code == 85, err
        assert "leaves as --leave-every asks" in err
    code, _, err = foreground.run(spec)
    assert code == 0, err
    history = foreground.folder / ".trainerd/exec/tiny/runs/tiny/metrics.jsonl"
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row.get("values", row)]
    assert steps == list(range(1, 61))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--leave-every", "0"), "not a duration of 1 s or more"),
        (("--leave-every", "1h", "--temporary"), "keeps nothing"),
    ],
)
def test_a_leave_every_that_could_never_make_progress_is_a_usage_error(foreground, words, said):
    foreground.spec("exit 0")
    code, _, err = foreground.run("ant.json", *words)
    assert code == 2
    assert said in err


PROCESS_ONE = """
import os, sys, time
from trainerd.cli.main import main
assert os.getpid() == 1
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.3)  # an orphan, which nobody but process 1 can collect
        os._exit(0)
    os._exit(0)
os.wait()
sys.argv = ["trainerd", "exec", "ant.json"]
main()
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a process namespace")
def test_as_process_1_of_a_container_it_reaps_orphans_and_leaves_with_the_jobs_exit_code(foreground):
    count = (
        "for i in $(seq 100); do grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || exit 0; "
        "sleep 0.1; done; exit 7"
    )
    foreground.spec(f"sleep 0.5; {count}", restart={"budget": 1})
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", PROCESS_ONE]
    ended = subprocess.run(
        command, cwd=foreground.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a process namespace")
def test_as_process_1_of_a_container_sigterm_drains(foreground):
    foreground.spec(OBEDIENT)
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-c",
        PROCESS_ONE,
    ]
    foreground.start_anew(*command)
    foreground.wait_for_line("up")
    (inner,) = [int(pid) for pid in _children(foreground.process.pid)]
    os.kill(inner, signal.SIGTERM)
    code, _, err = foreground.ended()
    assert "asked to leave" in err
    assert code == 1


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
