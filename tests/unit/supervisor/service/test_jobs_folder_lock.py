"""Two supervisors do not run the jobs of one folder."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from trainerd.errors import LockedError
from trainerd.supervisor.service import jobs_folder_lock as module
from trainerd.supervisor.service.jobs_folder_lock import VARIABLE, jobs_folder_lock, offer_lock


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path):
    with (
        jobs_folder_lock(tmp_path, {}) as held,
        pytest.raises(LockedError, match=f"process {os.getpid()}"),
        jobs_folder_lock(tmp_path, {}),
    ):
        pass
    assert held is not None
    assert list(tmp_path.iterdir()) == [], "nothing is written into the folder"


def test_after_the_end_of_the_first_the_folder_is_free(tmp_path):
    for _ in range(2):
        with jobs_folder_lock(tmp_path, {}) as held:
            assert held is not None


def test_no_child_inherits_it(tmp_path):
    with jobs_folder_lock(tmp_path, {}):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    with jobs_folder_lock(tmp_path, {}) as held:
        assert held is not None
    child.communicate(b"\n")


def test_the_next_program_of_the_process_takes_it_over(tmp_path):
    environ: dict[str, str] = {}
    with jobs_folder_lock(tmp_path, {}) as held:
        passed_on = os.dup(held)
        offer_lock(passed_on, environ)
    with jobs_folder_lock(tmp_path, environ) as taken:
        assert taken == passed_on
        assert not os.get_inheritable(taken)
    assert VARIABLE not in environ


@pytest.mark.parametrize("text", ["", "1 pid=1 lock=0", "1 pid={pid} lock=9999", "nonsense"])
def test_what_is_no_offer_to_this_process_is_ignored(tmp_path, text):
    with jobs_folder_lock(tmp_path, {VARIABLE: text.format(pid=os.getpid())}) as held:
        assert held is not None


def test_the_lock_of_a_stranger_keeps_nobody_from_starting(tmp_path, monkeypatch):
    stranger = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(stranger, fcntl.LOCK_EX)
    monkeypatch.setattr(module, "_may_supervise", lambda *_: False)
    with jobs_folder_lock(tmp_path, {}) as held:
        assert held is None
    os.close(stranger)


def test_a_folder_that_cannot_be_opened_is_not_locked(tmp_path):
    with jobs_folder_lock(tmp_path / "gone", {}) as held:
        assert held is None
