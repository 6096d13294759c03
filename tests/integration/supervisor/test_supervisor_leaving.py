"""A supervisor that leaves: by a plan, with systemd informed, within the time that there is."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from tests.support.daemon_bench import ENDLESS, OBEDIENT, script


@pytest.fixture
def notices(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def said(notices) -> list[str]:
    found = []
    while True:
        try:
            found.append(notices.recv(4096).decode())
        except BlockingIOError:
            return found


def test_a_limit_shorter_than_the_grace_hurries_the_ranks_and_is_kept(bench, notices):
    """The grace is a minute and the machine has six seconds: the ranks are told "now" in time to save."""
    bench.start(config='[stop]\nlimit = "6s"\n', NOTIFY_SOCKET=notices.getsockname())
    body = "n=0; trap 'n=$((n+1)); touch asked.$n; test $n -ge 2 && exit 0' TERM; " + ENDLESS
    bench.drop("ant", script("ant", body), grace=60)
    bench.wait_running("ant")
    began = time.monotonic()
    assert bench.stop() == 0
    assert time.monotonic() - began < 20  # and not the minute of its grace
    assert (bench.work / "asked.2").exists()
    lines = said(notices)
    assert lines.index("STOPPING=1") < lines.index("EXTEND_TIMEOUT_USEC=15000000")
    assert any(line.startswith("STATUS=draining, 1 left") for line in lines)


def test_whoever_ignores_that_too_is_killed_before_the_time_is_over(bench):
    bench.start(config='[stop]\nlimit = "4s"\n')
    bench.drop("ant", script("ant", f"trap '' TERM; {ENDLESS}"), grace=60)
    pid = bench.wait_running("ant")["pids"][0]
    began = time.monotonic()
    assert bench.stop() == 0
    assert time.monotonic() - began < 20  # and not the minute of its grace
    assert any(line["event"] == "supervisor.kills" for line in bench.log())
    bench.start()
    assert bench.wait_running("ant", attempt=2)["pids"] != [pid]


def test_a_drain_is_predicted_from_the_ones_before(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT), grace=60)
    bench.wait_running("ant")
    bench.stop()
    bench.start()
    bench.wait_running("ant", attempt=2)
    assert bench.stop(signal.SIGUSR1) == 0  # as batch systems ask
    first, second = (line for line in bench.log() if line["event"] == "supervisor.draining")
    assert first["predicted_s"] == 60
    assert 0 < second["predicted_s"] < 10
