"""A job of the supervisor's own user may look, and may not command; what cannot be told is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_control import MNIST, FakeControl, served
from trainerd.supervisor.api.job_guard import is_of_a_job

ASK = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(20)
    client.connect(sys.argv[1])
    client.sendall(b"%s HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n" % sys.argv[2].encode())
    sys.stdout.write(client.recv(65536).decode())
"""


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def asked(path, request, *, mark=None, through=()):
    """Return what a process with the mark of an attempt, perhaps below others, is answered."""
    environ = {"PATH": os.environ["PATH"]} | ({} if mark is None else {"TRAINERD_ATTEMPT_ID": str(mark)})
    words = [*through, sys.executable, "-I", "-S", "-c", ASK, str(path), request]
    return subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("request_line", ["POST /v1/jobs/mnist/stop", "POST /v1/hold", "POST /v1/reload"])
def test_a_job_commands_nothing(tmp_path, runs, request_line):
    mark = runs / "mnist/attempts/000001@abcd-1-2"
    with served(FakeControl(MNIST), tmp_path / "s", runs=runs) as control:
        assert " 403 " in asked(tmp_path / "s", request_line, mark=mark)
        cleared = ("/bin/sh", "-c", 'env -i "$@"; exit', "sh")
        assert " 403 " in asked(tmp_path / "s", request_line, mark=mark, through=cleared)
        assert control.calls == []


def test_a_job_may_look_and_ask_for_a_scan_and_others_of_the_same_user_may_command(tmp_path, runs):
    mark = runs / "mnist/attempts/000001@abcd-1-2"
    elsewhere = tmp_path / "other/runs/mnist/attempts/000001@abcd-1-2"
    with served(FakeControl(MNIST), tmp_path / "s", runs=runs) as control:
        assert " 200 " in asked(tmp_path / "s", "GET /v1/jobs", mark=mark)
        assert " 200 " in asked(tmp_path / "s", "POST /v1/rescan", mark=mark)
        assert " 200 " in asked(tmp_path / "s", "POST /v1/jobs/mnist/stop", mark=elsewhere)
        assert any("stop" in str(call) for call in control.calls)


def test_a_look_that_fails_refuses(tmp_path, runs, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("trainerd.supervisor.api.job_guard.is_of_a_job", broken)
    with (
        served(FakeControl(MNIST), tmp_path / "s", runs=runs) as control,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.settimeout(20)
        client.connect(str(tmp_path / "s"))
        client.sendall(b"POST /v1/hold HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b" 403 " in client.recv(65536)
        assert control.calls == []


def process(proc, pid, parent, *, cmdline=b"python\0x.py\0", environ=b"A=1\0", cgroup="0::/unit\n"):
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (name) S {parent} 1 1" + " 0" * 48)
    (folder / "cmdline").write_bytes(cmdline)
    (folder / "environ").write_bytes(environ)
    (folder / "cgroup").write_text(cgroup)


@pytest.mark.parametrize(
    ("above", "own", "is_job"),
    [
        ({}, {}, False),
        ({"cmdline": b"python\0-P\0-m\0trainerd.shim\0/s/runs/a/attempts/000001\0"}, {}, True),
        ({"cmdline": b"trainerd: a, attempt 1: /s/runs/a/attempts/000001"}, {}, True),
        ({"cmdline": b"trainerd: a, attempt 1: /other/runs/a/attempts/000001"}, {}, False),
        ({"environ": b"B=2\0TRAINERD_ATTEMPT_ID=/s/runs/a/attempts/000001@x\0"}, {}, True),
        ({}, {"cgroup": "0::/unit/trainerd-a-1-2-3\n"}, True),
        ({}, {"cgroup": "0::/unit/other\n"}, False),
    ],
)
def test_a_job_is_known_by_its_shim_its_mark_and_its_cgroup(tmp_path, above, own, is_job):
    process(tmp_path, 10, 1, **above)
    process(tmp_path, 11, 10, **own)
    process(tmp_path, "self", 1)
    (tmp_path / "self/cgroup").write_text("0::/unit/supervisor\n" if own else "0::/unit\n")
    assert is_of_a_job(11, Path("/s/runs"), tmp_path) is is_job


def test_a_process_that_is_gone_or_not_seen_cannot_be_told(runs):
    for pid in (0, 2**22 + 1):
        with pytest.raises(OSError):
            is_of_a_job(pid, runs)
