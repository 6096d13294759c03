"""Runs a script cold and in a standby process, the same way, and returns what it observed."""

import json
import os
import select
import time
from pathlib import Path

from trainerd.shim.cgroup import AttemptCgroup
from trainerd.shim.spawn import spawn

READY_LIMIT_S = 120.0
_DISTRUSTED_S = 2.1
"""A standby does not trust packages that were changed so shortly before it, and is unfit."""


def wait_until_settled(packages: Path) -> None:
    """Wait until a standby that is begun now trusts a folder of packages."""
    changed_s = max(path.stat().st_ctime for path in (packages, *packages.rglob("*")))
    time.sleep(max(0.0, changed_s + _DISTRUSTED_S - time.time()))


def wait_until_ready(standby) -> str:
    assert select.select([standby.channel], [], [], READY_LIMIT_S)[0], "not ready in time"
    return standby.channel.recv(4096).decode()


def run(start, tmp_path, standby=None):
    command, workdir, environ, held = start
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        if standby is None:
            pid = spawn(command, workdir, environ, log, held=held)
        else:
            pid = standby.take(start, log_descriptor=log, cgroup=AttemptCgroup(()))
            assert pid == standby.pid
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(log)
    return status, (tmp_path / "log").read_text(), json.loads((tmp_path / "seen.json").read_text())
