"""A standby is used only for exactly what it was prepared for, and says what differs otherwise."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from trainerd.contract.module_note import ModuleNote
from trainerd.shim.cgroup import AttemptCgroup
from trainerd.shim.spawn import RankStart
from trainerd.shim.standby_process import StandbyProcess


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"command": (sys.executable, "-O", "train.py")}, "interpreter"),
        ({"workdir": "/tmp"}, "working folder"),
        ({"environ": {"A": "2"}}, "environment"),
        ({"held": frozenset({signal.SIGTERM})}, "signal mask"),
    ],
    ids=["interpreter", "workdir", "environ", "held"],
)
def test_a_standby_prepared_for_another_start_is_ended_and_says_what_differs(
    tmp_path, monkeypatch, capfd, changed, what
):
    monkeypatch.chdir(tmp_path)  # a shim goes to / when it has started a process
    (tmp_path / "train.py").write_text("raise SystemExit('it must not run')")
    start = RankStart((sys.executable, "train.py"), str(tmp_path), {"A": "1"}, frozenset())
    standby = StandbyProcess(start, ModuleNote(0, (), (), ()))
    taken = standby.take(start._replace(**changed), log_descriptor=1, cgroup=AttemptCgroup(()))
    os.close(standby._output)
    assert taken is None
    assert f"the standby is not used: the {what} has changed" in capfd.readouterr().err
    assert not Path(f"/proc/{standby.pid}").exists(), "it was killed and collected"
