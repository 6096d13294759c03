"""What the Makefile promises to a newcomer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # These tests may themselves run under make, whose variables must not leak into the one under test.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_make_alone_lists_every_target() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    text = text.replace("\\\n", " ")
    promised = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    listed = {line.split()[0] for line in make().stdout.splitlines() if line.startswith("  ")}
    assert listed == promised


@pytest.mark.parametrize("python", ["/nonexistent/python3", "/bin/false"])
def test_an_unusable_python_is_named_and_nothing_is_made(tmp_path: Path, python: str) -> None:
    result = make("venv", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert f"{python} is older than Python 3.11, or does not run" in result.stdout
    assert not (tmp_path / "venv").exists()


def test_the_demo_installs_what_it_needs_and_the_tests_what_developers_need(tmp_path: Path) -> None:
    venv = f"VENV={tmp_path / 'venv'}"
    demo, test = make("--dry-run", "demo", venv).stdout, make("--dry-run", "test", venv).stdout
    assert re.findall(r"'\.\[(\w+)\]'", demo) == ["examples"]
    assert re.findall(r"'\.\[(\w+)\]'", test) == ["examples", "dev"]


def test_no_python_at_all_says_what_to_do(tmp_path: Path) -> None:
    result = make("venv", "PYTHON=", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert "make venv PYTHON=/path/to/python3" in result.stdout


def test_a_python_without_venv_says_which_package_is_missing(tmp_path: Path) -> None:
    """Debian ships python3 without ensurepip; the message names the package that mends it."""
    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; *) exit 0;; esac\n')
    fake.chmod(0o755)
    result = make("venv", f"PYTHON={fake}", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert "apt-get install python3-venv" in result.stdout


def test_installing_where_no_systemd_runs_says_what_else_may_be_meant(tmp_path: Path) -> None:
    """`make install` once made the environment for development: nobody gets a system service by habit."""
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    result = make("install", f"PREFIX={tmp_path / 'opt'}", f"LIBDIR={tmp_path}", f"BINDIR={tmp_path}")
    assert result.returncode != 0
    assert "make venv" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_ours_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    mine = tmp_path / "opt" / "mine"
    mine.mkdir(parents=True)
    for verb in ("install", "uninstall"):
        result = make(verb, f"DESTDIR={tmp_path}", "PREFIX=/opt/mine")
        assert result.returncode != 0
        assert "not of trainerd's making" in result.stderr
    assert mine.is_dir()


@pytest.mark.parametrize("target", ["test", "test-slow", "test-floors"])
def test_what_tests_import_is_compiled_once(target) -> None:
    """Else each of thousands of processes compiles the package."""
    assert "unset PYTHONDONTWRITEBYTECODE; exec" in make("-n", target).stdout
