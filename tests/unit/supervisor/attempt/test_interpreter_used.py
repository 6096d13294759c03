"""Which Python an attempt ran with, as told from its spec and its launch record."""

from __future__ import annotations

import sys

import pytest

from tests.support.supervisor_objects import spec
from trainerd.contract.paths import RunPaths
from trainerd.supervisor.attempt.interpreter_used import interpreter_used
from trainerd.supervisor.attempt.launch_record import launch_record
from trainerd.supervisor.machine.interpreter import Interpreter


def used(tmp_path, command, python=None, environ=None):
    job = spec(command=command, python=python)
    launch = launch_record(job, RunPaths(tmp_path), 1, environ=environ or {"PATH": "/nowhere"})
    return interpreter_used(job, launch)


@pytest.mark.parametrize(
    ("command", "python", "expected"),
    [
        (("python", "train.py"), None, Interpreter(sys.executable, "supervisor")),
        (("python", "-m", "x"), "/opt/v/bin/python", Interpreter("/opt/v/bin/python", "field")),
        (("/usr/bin/python3.11", "x.py"), None, Interpreter("/usr/bin/python3.11", "command")),
        (("python3", "x.py"), "/opt/v/bin/python", Interpreter("python3", "command")),
        (("bash", "run.sh"), None, None),
        (("torchrun", "x.py"), None, None),
        (("./python-train", "x.py"), None, None),
    ],
)
def test_the_interpreter_is_told_from_the_command_and_the_field(tmp_path, command, python, expected):
    assert used(tmp_path, command, python) == expected


def test_a_bare_name_is_looked_for_in_the_path_of_the_ranks(tmp_path):
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = used(tmp_path, ("python3", "x.py"), environ={"PATH": str(tmp_path)})
    assert found == Interpreter(str(program), "command")


def test_without_a_path_it_is_not_looked_for_in_that_of_the_supervisor(tmp_path, monkeypatch):
    program = tmp_path / "python9.99"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = used(tmp_path, ("python9.99", "x.py"), environ={"A": "1"})
    assert found == Interpreter("python9.99", "command"), "the shim looks in its default folders"


def test_without_a_launch_record_nothing_is_said():
    assert interpreter_used(spec(command=("python", "x.py")), None) is None
