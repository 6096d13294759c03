"""What CI runs: every slow test in one of its parts, and nothing that is not there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / ".ci" / "run"

FAKE_MAKE = """#!/bin/sh
case "$*" in
*new-inputs*|*" test "*|"test "*)
    [ -e "$CI_TEST/tried" ] && echo "1 passed in 1.0s" && exit 0
    touch "$CI_TEST/tried"
    printf 'E   a flake\nFAILED tests/a.py::test_flake - a flake\n1 failed in 1.0s\n'
    exit 1 ;;
*systemd*)
    printf 'E   assert 1 == 2\nFAILED tests/b.py::test_bad - assert 1 == 2\n1 failed in 1.0s\n'
    exit 1 ;;
*mutants*) printf 'SURVIVED a.py:1\n3 passed, 1 failed\n'; exit 1 ;;
*) echo "1 passed in 1.0s" ;;
esac
"""

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


def test_no_two_test_files_have_one_name():
    """Pytest imports them by their names alone, and refuses the second one where both are collected."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}


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
    assert len(re.findall(r"^joined$", text, re.MULTILINE)) == 1, "it waits for all of them"
    assert text.rindex("\nbeside ") < text.rindex("\njoined\n") < text.rindex("exit ")
    assert text.rindex("\njoined\n") < text.rindex("\nmutants\n"), (
        "they have limits of their own, in real time"
    )


def test_parts_that_run_at_the_same_time_remember_what_failed_in_folders_of_their_own():
    """One that has a second chance would otherwise find the failures of the others."""
    text = SCRIPT.read_text().replace("\\\n", " ")
    beside = re.findall(r"^ +run \".*$", text, re.MULTILINE)
    folders = [re.search(r" -o cache_dir=(\S+)", part) for part in beside]
    assert None not in folders, beside
    assert len({folder[1] for folder in folders}) == len(beside) > 2


def test_the_script_is_one_that_bash_understands():
    subprocess.run(["bash", "-n", SCRIPT], check=True, timeout=20)
    assert os.access(SCRIPT, os.X_OK)


def test_the_declared_minimum_versions_are_tested_where_there_is_a_target_for_it():
    has_target = re.search(r"^test-floors:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE) is not None
    is_run = re.search(r"^ *run .* test-floors\b", SCRIPT.read_text(), re.MULTILINE) is not None
    assert has_target == is_run


def test_the_log_ends_with_what_failed_in_the_end_the_seed_and_the_time(tmp_path):
    """With a `make` that fails a test once, another one always, and lets a mutant survive."""
    for name, text in {"make": FAKE_MAKE, "apt-get": "#!/bin/sh\nexit 1\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [SCRIPT],
        env=os.environ
        | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CI_TEST": str(tmp_path),
            "TRAINERD_SIMULATION_FIRST": "7",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    end = done.stdout[done.stdout.rindex("\neveryday tests ") :]
    assert "everyday tests, failed at first: tests/a.py::test_flake" in done.stdout
    assert "failed in the end: everyday" not in end
    assert "a flake" not in end
    of_mutants, of_systemd = sorted(end.split("\n\n")[1:3])
    assert of_mutants == "failed in the end: mutants\nSURVIVED a.py:1\nSURVIVED a.py:1\n3 passed, 1 failed"
    assert of_systemd == (
        "failed in the end: systemd, power cuts and chaos\n"
        "FAILED tests/b.py::test_bad - assert 1 == 2\n"
        "E   assert 1 == 2"
    )
    seed, time_taken = end.splitlines()[-2:]
    assert seed == "the ten thousand schedules began with seed 7"
    assert re.fullmatch(r"all of it took \d+ min", time_taken)
