"""A real jobs folder under a clock that a test moves."""

from __future__ import annotations

import time

import pytest

from trainerd.supervisor.specs.folder import SpecFolder
from trainerd.supervisor.specs.trust import TrustPolicy


class MovedClock:
    """Moves only when told.

    Its wall clock is behind the kernel's, which stamps the files: then only what the test lets pass can
    settle them. Set ahead, it makes every file an old one.
    """

    def __init__(self):
        self.passed_s = 0.0
        self.wall_ahead_s = -3600.0

    def wall_s(self):
        return time.time() + self.wall_ahead_s

    def monotonic_s(self):
        return 1000.0 + self.passed_s


class JobsFolder:
    def __init__(self, path):
        self.path = path
        self.clock = MovedClock()
        self.specs = self.opened()

    def opened(self, **arguments):
        """Return what a supervisor that has just started knows."""
        return SpecFolder(self.path, trust=TrustPolicy.of_this_user(), clock=self.clock, **arguments)

    def write(self, name, text="command: a"):
        (self.path / name).write_text(text)
        return self.path / name

    def scan(self, *, after_s=0.0):
        self.clock.passed_s += after_s
        return self.specs.scan()

    def settled(self):
        """Scan as the supervisor does, as often as the view asks for, and return the view that asks no
        more."""
        for _ in range(10):
            view = self.specs.scan()
            if view.look_again_s is None:
                return view
            self.clock.passed_s += view.look_again_s
        raise AssertionError(f"does not settle: {view}")


@pytest.fixture
def jobs(tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    folder.chmod(0o755)
    return JobsFolder(folder)
