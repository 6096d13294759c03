"""Which texts are one spec: the digest is of what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainerd.supervisor.specs.load import parse_spec

PLAIN = "command: [python, train.py]\ngrace: 1m\nenv: {A: '1', B: '2'}\ncheckpoint: {every: {steps: 5}}\n"
AS_JSON = """{"command": ["python", "train.py"], "checkpoint": {"every": {"steps": 5}}, "grace": 60,
              "env": {"A": "1", "B": "2"}}"""
AS_TOML = """command = ["python", "train.py"]
grace = "60s"
env = {A = "1", B = "2"}
[checkpoint.every]
steps = 5
"""


def digest(text: str, file: str = "/jobs/ant.yaml") -> str:
    return parse_spec(Path(file), text.encode()).digest


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("# why\n\n" + PLAIN.replace("\n", "   # because\n"), "/jobs/ant.yaml"),
        ("\n".join(reversed(PLAIN.splitlines())), "/jobs/ant.yaml"),
        (PLAIN.replace("A: '1', B: '2'", "B: '2', A: '1'"), "/jobs/ant.yaml"),
        (PLAIN.replace("1m", "60"), "/jobs/ant.yaml"),
        (PLAIN.replace("[python, train.py]", "python train.py"), "/jobs/ant.yaml"),
        (PLAIN + "priority: 0\nrestart: {budget: 5}\nresources:\nworkdir: ./\n", "/jobs/ant.yaml"),
        (PLAIN + "name: ant\n", "/jobs/other.yaml"),
        (PLAIN, "/elsewhere/ant.yml"),
        (AS_JSON, "/jobs/ant.json"),
        (AS_TOML, "/jobs/ant.toml"),
    ],
    ids=["comments", "order", "order within", "units", "words", "defaults", "name", "folder", "json", "toml"],
)
def test_what_says_the_same_is_the_same(text, file):
    assert digest(text, file) == digest(PLAIN)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        (PLAIN.replace("1m", "2m"), "/jobs/ant.yaml"),
        (PLAIN.replace("[python, train.py]", "[train.py, python]"), "/jobs/ant.yaml"),
        (PLAIN.replace("A: '1'", "A: '1 '"), "/jobs/ant.yaml"),
        (PLAIN.replace("steps: 5", "steps: 5, seconds: never"), "/jobs/ant.yaml"),
        # What the spec says about checkpoints overrules the script, even if it says what the default is.
        (PLAIN.replace("steps: 5}", "steps: 5}, keep_last: 3"), "/jobs/ant.yaml"),
        (PLAIN.replace("steps: 5", "steps: 5, epochs: 1"), "/jobs/ant.yaml"),
        (PLAIN + "name: bee", "/jobs/ant.yaml"),
        (PLAIN, "/jobs/bee.yaml"),
        (PLAIN + "workdir: sub", "/jobs/ant.yaml"),
        (PLAIN + "python: python", "/jobs/ant.yaml"),
        (PLAIN + "nproc: 2", "/jobs/ant.yaml"),
        (PLAIN + "nproc: 1", "/jobs/ant.yaml"),  # told RANK and its like
        (PLAIN + "completion: record", "/jobs/ant.yaml"),
        (PLAIN + "stall_timeout: never", "/jobs/ant.yaml"),
        (PLAIN.replace("{steps: 5}", "auto"), "/jobs/ant.yaml"),
    ],
)
def test_what_says_something_else_is_another(text, file):
    assert digest(text, file) != digest(PLAIN)


def test_a_program_to_look_for_is_not_a_file_of_this_folder():
    assert digest(PLAIN + "python: python3") != digest(PLAIN + "python: ./python3")


def test_the_digest_of_a_spec_is_the_same_in_every_version():
    """It is in journals and run folders: another one would drain every job, and run finished ones again."""
    assert digest(PLAIN) == "f6eedc3f6baebb78c61dbc0229a0e80a"
    assert digest("command: a") == "ed0c1ff9f979982fefacc3b4c8961ac9"
