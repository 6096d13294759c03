"""The supervisor's session goes first where that is allowed; its children's sessions are not touched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trainerd.supervisor.service.priority import NICENESS, OWN_SESSION, go_first

CODE = """
import os, subprocess
from trainerd.supervisor.service.priority import go_first
print(go_first(), open("/proc/self/autogroup").read().split()[-1], os.nice(0))
print(subprocess.check_output(["cat", "/proc/self/autogroup"], start_new_session=True, text=True).split()[-1])
"""


def test_a_session_of_somebody_else_is_left_alone(tmp_path):
    assert not go_first(tmp_path / "autogroup"), "the tests do not lead theirs"
    assert not (tmp_path / "autogroup").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can raise the weight of a session")
@pytest.mark.skipif(not OWN_SESSION.exists(), reason="this kernel has no autogroups")
def test_a_leader_of_a_session_goes_first_and_its_children_do_not():
    said = subprocess.run(
        [sys.executable, "-c", CODE], start_new_session=True, check=True, capture_output=True, text=True
    ).stdout.split()
    assert said == ["True", str(NICENESS), "0", "0"]


def test_where_it_is_not_allowed_nothing_happens():
    code = (
        "from pathlib import Path; from trainerd.supervisor.service.priority import go_first; "
        "print(go_first(Path('/proc/none/x')))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, check=True, capture_output=True, text=True
    )
    assert said.stdout == "False\n"
