"""Each promise about security, tried on a real supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import pytest
from click.testing import CliRunner

from tests.support.daemon_bench import OBEDIENT, script
from tests.support.unix_sockets import connect
from trainerd.cli.main import group
from trainerd.supervisor.api.server import CONNECTIONS_HEARD_MAX, CONNECTIONS_MAX

SECRET = "hunter2-correct-horse-battery"


def test_a_secret_of_an_env_file_is_in_no_log_no_answer_no_journal_and_no_copy(bench):
    """Through a crash, a restart, a change of the spec and a refusal: whatever is written down about them."""
    env_file = bench.root / "secrets.env"
    env_file.write_text(f"TOKEN={SECRET}\n")
    env_file.chmod(0o600)
    bench.start()
    knows = f'[ "$TOKEN" = "{SECRET[:7]}""{SECRET[7:]}" ] && touch knows'
    bench.drop("ant", script("ant", f"{knows}; exit 3"), env_file=str(env_file))
    bench.wait_file("knows")
    bench.wait_state("ant", "parked")
    bench.drop("ant", script("ant", OBEDIENT), env_file=str(env_file))
    bench.wait_running("ant")
    env_file.write_text(f"TOKEN {SECRET}\n")
    bench.drop("ant", script("ant", OBEDIENT), env_file=str(env_file), priority=1)
    bench.wait_for(lambda: len(bench.outcomes("ant")) >= 5, "an attempt that could not read its secrets")
    answers = [
        bench.get(path)
        for path in ("/v1/daemon", "/v1/jobs", "/v1/jobs/ant/outcomes", "/v1/events?limit=1000")
    ]
    assert SECRET not in json.dumps(answers)
    bench.stop()
    files = [path for path in bench.state.root.rglob("*") if path.is_file()]
    assert {"journal.sqlite3", "trainerd.jsonl", "job.json", "launch.json"} <= {path.name for path in files}
    for path in (*files, bench.output):
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "words",
    [
        ("logs", "../../etc/passwd"),
        ("metrics", ".."),
        ("rm", "../jobs"),
        ("edit", "/etc/passwd"),
        ("hold", "a/b"),
        ("pin", "ant", "../../../evil"),
        ("resume", "ant", "--from", "../../evil"),
        ("checkpoints", "ant/../bee"),
    ],
    ids=" ".join,
)
def test_no_name_leads_out_of_the_folders(bench, words):
    bench.state.root.mkdir()
    bench.state.run("ant").checkpoints.mkdir(parents=True)
    (bench.root / "evil").mkdir()
    before = sorted(bench.root.rglob("*"))
    result = CliRunner().invoke(group, [*words, "--state", str(bench.state.root)])
    assert (result.exit_code, isinstance(result.exception, SystemExit)) == (1, True), result.exception
    assert "error: " in result.stderr
    assert sorted(bench.root.rglob("*")) == before


def test_a_spec_cannot_name_a_path(bench):
    bench.start()
    bench.write("evil", '{"name": "../../evil", "command": "true"}')
    refused = bench.wait_state("evil", "rejected")
    assert "name" in refused["reason"]
    assert not (bench.root / "evil").exists()


def test_a_body_without_end_is_not_read_and_disturbs_nobody(bench):
    """No request takes a body, so one of any size costs nothing."""
    bench.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        connect(client, bench.state.socket)
        client.sendall(b"POST /v1/rescan HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000000\r\n\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 * 1024 * 1024:
                sent += client.send(b"x" * 65536)
        assert bench.get("/v1/daemon")["pid"] == bench.supervisor.pid
    resident_kib = int(
        next(
            line.split()[1]
            for line in open(f"/proc/{bench.supervisor.pid}/status")  # noqa: SIM115, PTH123
            if line.startswith("VmRSS")
        )
    )
    assert resident_kib < 150 * 1024


def test_of_more_connections_than_are_served_at_once_the_others_are_refused_and_the_supervisor_goes_on(bench):
    """The first go on being served, each other one is told to try again, and no job notices."""
    bench.start()
    with contextlib.ExitStack() as stack:
        served = [_connected(stack, bench) for _ in range(CONNECTIONS_MAX)]
        assert {_asked(client).partition("\r\n")[0] for client in served} == {"HTTP/1.1 200 OK"}
        told = CliRunner().invoke(group, ["ps", "--state", str(bench.state.root)])
        assert (told.exit_code, "talks with 64 others already" in told.stderr) == (1, True)
        refused = _asked(_connected(stack, bench))
        assert refused.startswith("HTTP/1.1 503 ")
        assert json.loads(refused.partition("\r\n\r\n")[2])["error"].startswith(
            "the supervisor talks with 64"
        )
        for _ in range(CONNECTIONS_HEARD_MAX - CONNECTIONS_MAX):
            _connected(stack, bench)
        assert _asked(_connected(stack, bench)) == ""
        assert _asked(served[0]).startswith("HTTP/1.1 200 OK")
        bench.drop("ant", script("ant", OBEDIENT))
        bench.wait_file("ant.starts")
    bench.wait_running("ant")
    assert CliRunner().invoke(group, ["ps", "--state", str(bench.state.root)]).exit_code == 0


def _connected(stack: contextlib.ExitStack, bench) -> socket.socket:
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    connect(client, bench.state.socket)
    client.settimeout(20)
    return client


def _asked(client: socket.socket) -> str:
    said = ""
    with contextlib.suppress(ConnectionError):
        client.sendall(b"GET /v1/daemon HTTP/1.1\r\nhost: x\r\n\r\n")
        while not said.endswith("}") and (part := client.recv(65536)):
            said += part.decode()
    return said


def test_a_request_that_is_no_http_is_refused_and_disturbs_nobody(bench):
    bench.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        connect(client, bench.state.socket)
        client.sendall(os.urandom(4096) + b"\r\n\r\n")
        assert b"400" in client.recv(4096)
    assert bench.get("/v1/daemon")["pid"] == bench.supervisor.pid


@pytest.mark.parametrize(("mode", "is_believed"), [(0o644, True), (0o666, False)])
def test_a_spec_that_others_can_write_is_not_run(bench, mode, is_believed):
    path = bench.drop("ant", script("ant", "exit 0"))
    path.chmod(mode)
    bench.start()
    job = bench.wait_state("ant", "finished", "rejected")
    assert (job["state"] == "finished", bench.starts("ant") > 0) == (is_believed, is_believed)
    if not is_believed:
        assert "chmod o-w" in job["reason"]
