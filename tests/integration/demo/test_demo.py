"""The demo on real processes, with the tiny job: it ends equal, and however it is ended nothing is left
running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[3]
DEMO_LIMIT_S = 110.0
LEAVE_LIMIT_S = 40.0
POLL_S = 0.05


class Demo:
    """`make demo` as a process group of its own, as a terminal would have it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root.with_name("demo.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chaos.demo", "--job", "tiny", "--root", root],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_text(self, text: str) -> None:
        deadline_s = time.monotonic() + DEMO_LIMIT_S
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline_s, self.log.read_text()
            time.sleep(POLL_S)

    def leftovers(self) -> list[str]:
        """Return the command line of every process that has the demo's folder in its environment or
        arguments."""
        needle = os.fsencode(self.root)
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            if folder.name in {str(os.getpid()), str(self.process.pid)}:
                continue
            try:
                command = (folder / "cmdline").read_bytes()
                if needle in command or needle in (folder / "environ").read_bytes():
                    found.append(command.replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it has ended in the meantime
                continue
        return found

    def assert_nothing_is_left(self) -> None:
        deadline_s = time.monotonic() + LEAVE_LIMIT_S
        while self.leftovers():
            assert time.monotonic() < deadline_s, self.leftovers()
            time.sleep(POLL_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.assert_nothing_is_left()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "demo")
    yield demo
    demo.end()


def test_the_demo_ends_equal_after_a_kill_and_a_drain(demo: Demo) -> None:
    """The whole story, in order, with the verdict at its end and exit code 0."""
    code = demo.process.wait(timeout=DEMO_LIMIT_S)
    told = demo.log.read_text()
    assert code == 0, told
    places = [
        told.find(line)
        for line in (
            "the supervisor runs",
            "kill -9",
            "attempt 1 is judged killed",
            "attempt 2 went on from step-",
            "kill -TERM",
            "attempt 2 is judged drained",
            "exit code 85",
            "attempt 3 went on from step-",
            "mnist has finished after 3 attempts",
            "undisturbed has finished after 1 attempt",
            "left with exit code 0; nothing is left running",
            "40 steps and 2 scores: equal",
            "EQUAL to the last bit",
        )
    ]
    assert -1 not in places, told
    demo.assert_nothing_is_left()


@pytest.mark.parametrize(
    "moment",
    ["", "the supervisor runs", "dropped", "epoch 1/2", "kill -9", "kill -TERM"],
    ids=lambda moment: moment or "at once",
)
def test_ctrl_c_drains_and_leaves_nothing_running(demo: Demo, moment: str) -> None:
    """Ctrl-C reaches the whole foreground group; the jobs drain, and the exit code says interrupted."""
    demo.wait_for_text(moment)
    os.killpg(demo.process.pid, signal.SIGINT)
    demo.process.wait(timeout=LEAVE_LIMIT_S)
    if moment:  # before that Python itself may not have come as far as to hear it
        assert demo.process.returncode == 130, demo.log.read_text()
        assert "nothing is left running" in demo.log.read_text()
    assert demo.leftovers() == []


def test_a_demo_that_is_killed_leaves_nothing_running(demo: Demo) -> None:
    """The kernel asks its supervisor to drain."""
    demo.wait_for_text("epoch 1/2")
    demo.process.kill()
    demo.process.wait()
    demo.assert_nothing_is_left()


def test_a_second_demo_in_the_same_folder_is_refused(demo: Demo) -> None:
    demo.wait_for_text("the supervisor runs")
    second = subprocess.run(
        [sys.executable, "-m", "chaos.demo", "--job", "tiny", "--root", demo.root],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert f"another demo is running in {demo.root}" in second.stderr
    assert demo.process.poll() is None
