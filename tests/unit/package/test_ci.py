"""What CI runs: every slow test in one of its parts, and nothing that is not there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / ".ci" / "run"

SLOW_MARK = re.compile(r"\bmark\.slow\b")


def paths_of_parts() -> list[Path]:
    """Return the test folders and files that the slow parts name."""
    text = SCRIPT.read_text().replace("\\\n", " ")
    parts = re.findall(r"^ *run .* test-slow (.*)$", text, re.MULTILINE)
    return [REPOSITORY / word for part in parts for word in part.split() if word.startswith("tests/")]


def slow_files() -> list[Path]:
    """Return the test files that mark a test as slow."""
    found = [path for path in (REPOSITORY / "tests").rglob("test_*.py") if SLOW_MARK.search(path.read_text())]
    return [path for path in found if path != Path(__file__)]


def test_every_slow_test_is_in_a_part_of_ci():
    parts = paths_of_parts()
    forgotten = [
        str(path.relative_to(REPOSITORY))
        for path in slow_files()
        if not any(path.is_relative_to(part) for part in parts)
    ]
    assert not forgotten, f"in no part of .ci/run: {forgotten}"


def test_there_are_slow_tests_and_parts():
    """Guards the test above against passing for nothing."""
    assert len(slow_files()) > 10
    assert len(paths_of_parts()) > 3


def test_every_part_of_ci_is_there():
    assert [str(path) for path in paths_of_parts() if not path.exists()] == []


def test_no_slow_test_is_run_twice():
    parts = paths_of_parts()
    for path in slow_files():
        assert sum(path.is_relative_to(part) for part in parts) == 1, path


def test_what_stands_in_a_function_is_run_and_waited_for():
    text = SCRIPT.read_text()
    defined = re.findall(r"^(\w+)\(\) \{$(.*?)^\}$", text, re.MULTILINE | re.DOTALL)
    with_parts = [name for name, body in defined if re.search(r"^ *run ", body, re.MULTILINE)]
    started = re.findall(r"^beside (\w+)$", text, re.MULTILINE)
    assert started == with_parts
    assert len(re.findall(r"^joined$", text, re.MULTILINE)) == len(started)
    assert text.rindex("\nbeside ") < text.rindex("\njoined\n") < text.rindex("exit ")


def test_the_script_is_one_that_bash_understands():
    subprocess.run(["bash", "-n", SCRIPT], check=True, timeout=20)
    assert os.access(SCRIPT, os.X_OK)


def test_the_declared_minimum_versions_are_tested_where_there_is_a_target_for_it():
    has_target = re.search(r"^test-floors:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE) is not None
    is_run = re.search(r"^run .* test-floors\b", SCRIPT.read_text(), re.MULTILINE) is not None
    assert has_target == is_run
