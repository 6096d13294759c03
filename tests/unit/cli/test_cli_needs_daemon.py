"""The command where trainerd was installed for training only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainerd.cli.needs_daemon import PACKAGES

AS_IF_MISSING = """
import sys, runpy
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError, as if it were not installed
del sys.argv[1]
runpy.run_module("trainerd", run_name="__main__", alter_sys=True)
"""


def trainerd_without(packages: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_IF_MISSING, packages, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        (PACKAGES, ["--help"]),
        (PACKAGES, ["run"]),
        # Some are in many environments for other reasons: the command does not begin without the rest.
        (["httpx", "watchdog"], ["ps"]),
        (["yaml"], ["--version"]),
    ],
)
def test_missing_packages_are_two_lines_and_no_traceback(packages, words) -> None:
    result = trainerd_without(",".join(packages), *words)
    assert (result.returncode, result.stdout) == (1, "")
    what, remedy = result.stderr.splitlines()
    assert what == (
        f"error: not installed for {sys.executable}, and needed by the command trainerd: "
        f"{', '.join(packages)}"
    )
    assert remedy == f"  {sys.executable} -m pip install 'trainerd[daemon]'"


def test_any_other_missing_module_shows_its_traceback() -> None:
    result = trainerd_without("trainerd.errors", "--version")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "trainerd[daemon]" not in result.stderr
