"""The distribution, its pins and its entry points agree with one another."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import trainerd

REPOSITORY = Path(__file__).parents[3]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_installed_version_is_the_one_in_the_code() -> None:
    assert version("trainerd") == trainerd.__version__


def test_the_changelog_knows_this_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[?(Unreleased|{re.escape(trainerd.__version__)})", changelog, re.MULTILINE)


def test_the_console_script_exists() -> None:
    (script,) = [e for e in entry_points(group="console_scripts") if e.name == "trainerd"]
    assert script.value == "trainerd.cli.main:main"


def test_every_direct_dependency_has_a_tested_pin() -> None:
    """`pip install -c constraints.txt` leaves no version of a direct dependency to chance."""
    pins = dict(
        line.split("==")
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if line and line[0] != "#"
    )
    pinned = {normalized(name) for name in pins}
    asked = itertools.chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    names = {normalized(re.match(r"[A-Za-z0-9._-]+", requirement)[0]) for requirement in asked}
    assert names - pinned - {"trainerd"} == set()


def test_the_module_runs_as_the_script_does() -> None:
    """`python -m trainerd --version` works in any folder."""
    result = subprocess.run(
        [sys.executable, "-m", "trainerd", "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert trainerd.__version__ in result.stdout, result.stderr
