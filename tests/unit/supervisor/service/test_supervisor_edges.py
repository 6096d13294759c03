"""The lock of a state folder, and the way to systemd."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.support.unix_sockets import short_folder
from trainerd.errors import LockedError
from trainerd.supervisor.service.instance_lock import instance_lock
from trainerd.supervisor.service.sd_notify import Notifier


def test_the_second_to_ask_is_told_who_holds_the_lock(tmp_path):
    path = tmp_path / "trainerd.lock"
    with instance_lock(path), pytest.raises(LockedError, match=f"process {os.getpid()}"), instance_lock(path):
        pass


def test_the_lock_goes_with_its_process(tmp_path):
    """However that ends: nothing stale is left to clean up."""
    path = tmp_path / "trainerd.lock"
    code = (
        "import os, pathlib, sys\n"
        "from trainerd.supervisor.service.instance_lock import instance_lock\n"
        "with instance_lock(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    with instance_lock(path):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.fixture
def systemd():
    with short_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "notify"))
        listener.settimeout(5)
        yield listener


def test_systemd_is_told_in_its_own_words(systemd):
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "4000000"})
    notifier.ready()
    notifier.status("2 running")
    notifier.status("2 running")
    notifier.alive()
    notifier.extend(1.5)
    notifier.stopping()
    said = [systemd.recv(100).decode() for _ in range(6)]
    alive = "WATCHDOG=1"
    assert said == ["READY=1", alive, "STATUS=2 running", alive, "EXTEND_TIMEOUT_USEC=1500000", "STOPPING=1"]
    assert notifier.watchdog_interval_s == 2.0


def test_a_watchdog_meant_for_another_process_is_not_fed(systemd):
    environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}
    assert Notifier(environ).watchdog_interval_s is None


def test_without_systemd_nothing_is_said_and_nothing_fails(tmp_path):
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        Notifier(environ).ready()
