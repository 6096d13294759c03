"""Two supervisors do not run the jobs of one folder."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from trainerd.errors import LockedError
from trainerd.supervisor.service import jobs_folder_lock as module
from trainerd.supervisor.service.jobs_folder_lock import VARIABLE, JobsFolderLock, offer_lock
from trainerd.supervisor.specs.folder import SpecFolder
from trainerd.supervisor.specs.jobs_dir import locked


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path):
    with JobsFolderLock(tmp_path, {}) as held:
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            JobsFolderLock(tmp_path, {})
        assert held.descriptor is not None
    assert list(tmp_path.iterdir()) == [], "nothing is written into the folder"


def test_after_the_end_of_the_first_the_folder_is_free(tmp_path):
    for _ in range(2):
        with JobsFolderLock(tmp_path, {}) as held:
            assert held.descriptor is not None


def test_no_child_inherits_it(tmp_path):
    with JobsFolderLock(tmp_path, {}):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    with JobsFolderLock(tmp_path, {}) as held:
        assert held.descriptor is not None
    child.communicate(b"\n")


def test_the_next_program_of_the_process_takes_it_over(tmp_path):
    environ: dict[str, str] = {}
    with JobsFolderLock(tmp_path, {}) as held:
        passed_on = os.dup(held.descriptor)
        offer_lock(passed_on, environ)
    with JobsFolderLock(tmp_path, environ) as taken:
        assert taken.descriptor == passed_on
        assert not os.get_inheritable(passed_on)
    assert VARIABLE not in environ


@pytest.mark.parametrize("text", ["", "1 pid=1 lock=0", "1 pid={pid} lock=9999", "nonsense"])
def test_what_is_no_offer_to_this_process_is_ignored(tmp_path, text):
    with JobsFolderLock(tmp_path, {VARIABLE: text.format(pid=os.getpid())}) as held:
        assert held.descriptor is not None


def test_the_lock_of_a_stranger_does_not_prevent_a_start(tmp_path, monkeypatch):
    stranger = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(stranger, fcntl.LOCK_EX)
    monkeypatch.setattr(module, "_may_supervise", lambda *_: False)
    with JobsFolderLock(tmp_path, {}) as held:
        assert held.descriptor is None
    os.close(stranger)


def test_a_folder_that_cannot_be_opened_is_not_locked(tmp_path):
    with JobsFolderLock(tmp_path / "gone", {}) as held:
        assert held.descriptor is None


def test_the_folder_that_takes_the_place_of_a_deleted_one_is_locked(tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    with JobsFolderLock(folder, {}) as held:
        folder.rmdir()
        held.keep()  # nothing is there to be locked
        folder.mkdir()
        held.keep()
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            JobsFolderLock(folder, {})


def test_a_new_folder_that_another_supervisor_was_faster_to_lock_is_refused(tmp_path):
    folder, moved = tmp_path / "jobs", tmp_path / "moved"
    folder.mkdir()
    with JobsFolderLock(folder, {}) as held:
        folder.rename(moved)
        folder.mkdir()
        with JobsFolderLock(folder, {}):
            for _ in range(2):
                with pytest.raises(LockedError):
                    held.keep()
            with pytest.raises(LockedError):  # the one that has moved is still held
                JobsFolderLock(moved, {})
        held.keep()
        with pytest.raises(LockedError):
            JobsFolderLock(folder, {})


def test_nothing_is_read_from_a_folder_that_another_supervisor_runs(tmp_path):
    (tmp_path / "ant.json").write_text('{"command": ["true"]}')
    with JobsFolderLock(tmp_path, {}), JobsFolderLock(tmp_path / "gone", {}) as other:
        other._folder = tmp_path
        with pytest.raises(LockedError):
            SpecFolder(tmp_path, None, keep_lock=other.keep).scan()


def test_those_who_submit_are_not_kept_out_by_the_supervisor(tmp_path):
    with JobsFolderLock(tmp_path, {}), locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
