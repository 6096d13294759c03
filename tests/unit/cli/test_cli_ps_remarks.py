"""`trainerd ps` says when the supervisor can decide nothing, such as on a full disk."""

from __future__ import annotations

from trainerd.cli.ps import remarks
from trainerd.supervisor.api.control import DaemonView

DAEMON = {
    "version": "1",
    "pid": 1,
    "state_dir": "/s",
    "jobs_dir": "/j",
    "started_wall_s": 0.0,
    "is_stopping": False,
}


def test_a_full_disk_is_shown_with_and_without_jobs():
    full = DaemonView(**DAEMON, journal_problem="the disk is full\n  free some space")
    for is_empty in (True, False):
        assert remarks(full, is_empty=is_empty) == ["deciding nothing: the disk is full; free some space"]


def test_without_a_problem_only_an_empty_folder_is_remarked():
    assert remarks(DaemonView(**DAEMON), is_empty=False) == []
    assert "drop a spec into /j" in remarks(DaemonView(**DAEMON), is_empty=True)[0]
