"""The distribution, its pins and its entry points agree with one another."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import trainerd
from trainerd.cli.needs_daemon import PACKAGES

REPOSITORY = Path(__file__).parents[3]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
FLOORED_EXTRAS = ("daemon", "torch", "adopt", "plot", "storage", "test")


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_installed_version_is_the_one_in_the_code() -> None:
    assert version("trainerd") == trainerd.__version__


def test_the_changelog_knows_this_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[?(Unreleased|{re.escape(trainerd.__version__)})", changelog, re.MULTILINE)


def test_the_console_script_exists() -> None:
    scripts = {e.name: e.value for e in entry_points(group="console_scripts") if "trainerd" in e.name}
    assert scripts == {"trainerd": "trainerd.__main__:main"}


def build(what: str, tmp_path: Path) -> Path:
    """Build a `wheel` or an `sdist` from a copy, with the setuptools that is installed here: no network."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    leave_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(REPOSITORY, source, ignore=leave_out)
    program = (
        f"import sys; from setuptools import build_meta; print(build_meta.build_{what}(sys.argv[1], None))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return tmp_path / result.stdout.splitlines()[-1]


def test_the_wheel_has_one_package_and_asks_for_nothing_of_the_daemon(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"trainerd-{trainerd.__version__}.dist-info/METADATA").decode()
    daemon = REPOSITORY / "daemon"
    expected = {path.relative_to(daemon).as_posix() for path in (daemon / "trainerd").rglob("*.py")}
    page = daemon / "trainerd" / "supervisor" / "api" / "web"
    expected |= {path.relative_to(daemon).as_posix() for path in page.glob("[st]*/*.*")}
    assert expected | {"trainerd/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {
        "trainerd",
        f"trainerd-{trainerd.__version__}.dist-info",
    }
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    always = [requirement for requirement in required if "extra ==" not in requirement]
    assert [re.match(r"[a-z]+", requirement)[0] for requirement in always] == ["xxhash"]


def test_the_source_distribution_has_the_harness_and_its_scenarios(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("daemon/trainerd", "chaos", "tests", "bench", "systemd", "docs"):
        there = {
            path.relative_to(REPOSITORY).as_posix()
            for path in (REPOSITORY / folder).rglob("*")
            if path.suffix in {".py", ".yaml", ".md", ".sh", ".service"}
        }
        assert there - names == set()
    assert {"Makefile", "constraints.txt", "constraints-floors.txt"} <= names


def test_every_lower_bound_is_one_that_make_test_floors_installs() -> None:
    """torch alone is not in constraints-floors.txt, which says why."""
    extras = PROJECT["optional-dependencies"]
    asked = itertools.chain(PROJECT["dependencies"], *(extras[name] for name in FLOORED_EXTRAS))
    floors = {requirement for requirement in asked if not requirement.startswith(("trainerd", "torch>"))}
    lines = (REPOSITORY / "constraints-floors.txt").read_text().splitlines()
    pins = [line.replace("==", ">=") for line in lines if "==" in line and line[0] != "#"]
    assert floors - set(pins) == set()
    assert set(pins[: len(floors)]) == floors, "the declared ones come first"


def test_the_extra_of_the_daemon_is_what_the_command_misses_by_name() -> None:
    declared = {
        re.match(r"\w+", requirement)[0] for requirement in PROJECT["optional-dependencies"]["daemon"]
    }
    assert {name.replace("pyyaml", "yaml") for name in declared} == set(PACKAGES)


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
