"""As process 1 of a container, every orphan comes to the supervisor, also after a shim was killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import os, time
from trainerd.supervisor.attempt.reaper import OrphanReaper, is_reaper_needed
assert is_reaper_needed()
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(0)  # an orphan, which nobody but process 1 can collect
    os._exit(0)
os.wait()
reaper, deadline = OrphanReaper(), time.monotonic() + 10
while reaper.look() == 0:
    assert time.monotonic() < deadline
try:
    os.wait()
except ChildProcessError:
    print("no child is left")
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a process namespace")
def test_process_one_collects_an_orphan():
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", CODE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "no child is left\n", result.stderr
