"""What doctor shows of processes that wait for an attempt."""

import re
import subprocess

import psutil
import pytest

from trainerd.supervisor.doctor.finding import Status
from trainerd.supervisor.doctor.standby_processes import check_standbys

TITLE = "trainerd-standby ant attempt 000002"


@pytest.fixture
def shim():
    with subprocess.Popen(
        [TITLE, "-c", "sleep 100 & echo; wait"], executable="/bin/bash", stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        yield process
        for child in psutil.Process(process.pid).children():
            child.kill()


def test_one_that_waits_is_shown_with_its_memory_and_processor_time(shim, monkeypatch):
    monkeypatch.setattr(psutil, "process_iter", lambda _: [named(shim.pid)])
    (found,) = check_standbys()
    assert (found.check, found.status) == ("standby", Status.OK)
    assert re.fullmatch(
        r"ant attempt 000002 -c sleep 100 & echo; wait: process [0-9]+ holds [0-9]+ MB, [0-9]+ MB of it not "
        r"shared, and has used [0-9.]+ s of processor time",
        found.message,
    )


def named(pid):
    process = psutil.Process(pid)
    process.info = {"cmdline": process.cmdline()}
    return process


def test_where_none_waits_nothing_is_wrong(shim, monkeypatch):
    other = psutil.Process()
    other.info = {"cmdline": ["trainerd-shim", TITLE]}
    unseen = psutil.Process()
    unseen.info = {"cmdline": None}
    monkeypatch.setattr(psutil, "process_iter", lambda _: [other, unseen])
    (found,) = check_standbys()
    assert (found.status, found.message) == (Status.SKIPPED, "no process waits for an attempt")


def test_one_that_ends_meanwhile_is_left_out(shim, monkeypatch):
    ended = named(shim.pid)
    monkeypatch.setattr(psutil, "process_iter", lambda _: [ended])
    monkeypatch.setattr(psutil.Process, "memory_full_info", gone)
    (found,) = check_standbys()
    assert found.status is Status.SKIPPED


def gone(self):
    raise psutil.NoSuchProcess(self.pid)
