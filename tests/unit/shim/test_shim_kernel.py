"""The shim's wait for signals, in a process of its own that is stopped and continued."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import signal, sys
from trainerd.shim.kernel import hold_signals, wait_for_signal
hold_signals()
print("ready", flush=True)
while (number := wait_for_signal(0.2)) != signal.SIGQUIT:
    print("nothing" if number is None else number, flush=True)
"""
LIMIT_S = 20


def start():
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def wait_stopped(pid):
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T":
            return
    raise AssertionError("it was not stopped")


def test_a_wait_that_was_stopped_until_its_time_was_up_reports_no_signal():
    child = start()
    for _ in range(3):
        assert child.stdout.readline() == "nothing\n"  # in the middle of a wait, or about to begin one
        child.send_signal(signal.SIGSTOP)
        wait_stopped(child.pid)
        signal.sigtimedwait([], 0.3)
        child.send_signal(signal.SIGCONT)
    child.send_signal(signal.SIGQUIT)
    said, _ = child.communicate(timeout=LIMIT_S)
    assert set(said.split()) <= {"nothing"}
    assert child.returncode == 0


def test_a_signal_that_came_while_it_was_stopped_is_received_once():
    child = start()
    child.send_signal(signal.SIGSTOP)
    wait_stopped(child.pid)
    os.kill(child.pid, signal.SIGTERM)
    child.send_signal(signal.SIGCONT)
    received = f"{int(signal.SIGTERM)}\n"
    assert any(line == received for line in child.stdout), "it ended without"
    child.send_signal(
        signal.SIGQUIT
    )  # not before: of two signals that wait, the one with the lower number comes first
    said, _ = child.communicate(timeout=LIMIT_S)
    assert received.strip() not in said.split()
