"""The distribution, its pins and its entry points agree with one another."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("name", "function"),
    [("trainerd", "trainerd.cli.main:main"), ("trainerd-chaos", "chaos.__main__:main")],
)
def test_the_console_script_exists(name: str, function: str) -> None:
    (script,) = [e for e in entry_points(group="console_scripts") if e.name == name]
    assert script.value == function


def test_the_wheel_has_the_package_the_harness_and_its_scenarios(tmp_path: Path) -> None:
    """Built from a copy, as `make install` builds it, with the setuptools that is installed here: no network."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("daemon", "chaos"):
        leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / name, source / name, ignore=leave_out)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for root, folder in (("daemon", "trainerd"), (".", "chaos")):
        expected = {
            path.relative_to(source / root).as_posix() for path in (source / root / folder).rglob("*.py")
        }
        assert expected <= names
    scenarios = {
        f"chaos/scenarios/{path.name}" for path in (REPOSITORY / "chaos" / "scenarios").glob("*.yaml")
    }
    assert scenarios <= names
    assert {name.split("/")[0] for name in names} == {
        "trainerd",
        "chaos",
        f"trainerd-{trainerd.__version__}.dist-info",
    }


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
