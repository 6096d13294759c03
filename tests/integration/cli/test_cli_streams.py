"""The verbs that go on until somebody ends them, as processes of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.support.fake_control import EventView, job

PATIENCE_S = 60.0
WITHOUT_BUFFERS = {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TZ": "UTC"}


class Following:
    """A running verb, whose output is waited for."""

    def __init__(self, words, stdout=subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainerd", *words],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=os.environ | WITHOUT_BUFFERS,
        )
        self.output = b""

    def wait_for(self, text: bytes, descriptor: int | None = None) -> bytes:
        """Return what came up to and with `text`, and forget it."""
        descriptor = self.process.stdout.fileno() if descriptor is None else descriptor
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in self.output:
            ready, _, _ = select.select([descriptor], [], [], max(0, deadline_s - time.monotonic()))
            assert ready, f"{text!r} did not come, but {self.output!r}"
            data = os.read(descriptor, 65536)
            assert data, f"it ended before {text!r} came: {self.process.stderr.read()!r}"
            self.output += data
        end = self.output.index(text) + len(text)
        came, self.output = self.output[:end], self.output[end:]
        return came

    def interrupt(self) -> tuple[int, bytes]:
        """Press Ctrl-C; return the exit code and what it complained about."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        return code, self.process.stderr.read()


@pytest.fixture
def following():
    running = []

    def start(*words: str, **options) -> Following:
        running.append(Following(words, **options))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()
        for stream in (one.process.stdout, one.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def log(state):
    path = state.run("mnist").rank_log(0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(1, 31)))
    return path


def append(path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_logs_shows_all_attempts_with_no_supervisor(trainerd, log):
    assert trainerd("logs", "mnist").stdout.encode() == log.read_bytes()
    assert trainerd("logs", "mnist", "-n", 2).stdout == "line 29\nline 30\n"


def test_logs_lets_bytes_through_that_are_no_text(trainerd, log):
    log.write_bytes(b"\xff\x00\n")
    assert trainerd("logs", "mnist").stdout_bytes == b"\xff\x00\n"


def test_logs_of_several_ranks_say_whose_each_line_is(trainerd, state, log):
    log.write_bytes(b"zero\nhalf")
    state.run("mnist").rank_log(1).write_bytes(b"one\n")
    assert trainerd("logs", "mnist").stdout == "[0] zero\n[1] one\n[0] half\n"
    assert trainerd("logs", "mnist", "--rank", 1).stdout == "one\n"


def test_logs_as_json_has_a_line_an_object(trainerd, log):
    log.write_bytes(b"zero\n\nhalf")
    lines = trainerd("logs", "mnist", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"rank": 0, "line": "zero"},
        {"rank": 0, "line": ""},
        {"rank": 0, "line": "half"},
    ]


def test_logs_of_a_rank_that_has_none_says_so(trainerd, state):
    state.run("mnist").root.mkdir(parents=True)
    assert "no rank 7 has logged anything" in trainerd("logs", "mnist", "--rank", 7).stderr


def test_logs_without_a_name_is_a_usage_error(trainerd, state):
    assert "--daemon" in trainerd("logs", code=2).stderr


def test_logs_follows_over_new_attempts_truncation_and_deletion(following, log):
    tail = following("logs", "mnist", "-f")
    assert tail.wait_for(b"line 30\n").startswith(b"line 21\n")
    append(log, b"--- attempt 2 started ---\n")
    tail.wait_for(b"--- attempt 2 started ---\n")
    os.truncate(log, 0)
    append(log, b"after copy-truncate\n")
    tail.wait_for(b"after copy-truncate\n")
    log.unlink()
    append(log, b"after deletion\n")
    tail.wait_for(b"after deletion\n")
    append(log.with_name("rank-00001.log"), b"hello\n")
    tail.wait_for(b"[1] hello\n")
    assert tail.interrupt() == (0, b"")


def test_logs_waits_for_a_job_that_has_not_printed_yet(following, state):
    run = state.run("mnist")
    run.root.mkdir(parents=True)
    tail = following("logs", "mnist", "-f")
    log = run.rank_log(0)
    log.parent.mkdir()
    append(log, b"first\n")
    tail.wait_for(b"first\n")
    assert tail.interrupt() == (0, b"")


@pytest.mark.parametrize("words", ["logs mnist", "logs mnist -f", "logs --daemon"])
def test_a_reader_that_leaves_ends_it_without_a_word(state, log, words):
    log.write_bytes(b"line\n" * 200_000)
    state.log.parent.mkdir()
    state.log.write_bytes(b'{"event": "x"}\n' * 20_000)
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m trainerd {words} -n 20000 | head -n 1"],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.count(b"\n") == 1


@pytest.fixture
def daemon_log(state):
    state.log.parent.mkdir()
    lines = [
        {"ts": "2027-01-15T08:00:00.123Z", "level": "info", "event": "daemon.ready", "pid": 99},
        {
            "ts": "2027-01-15T08:00:01.123Z",
            "level": "info",
            "event": "job.running",
            "job": "mnist",
            "attempt": 1,
        },
        {
            "ts": "2027-01-15T08:00:02.123Z",
            "level": "error",
            "event": "x",
            "job": "a b",
            "exception": "Traceback",
        },
    ]
    state.log.write_text("".join(json.dumps(line) + "\n" for line in lines) + "not json\n")
    return state.log


def test_the_daemon_log_is_shown_for_people(trainerd, daemon_log):
    assert trainerd("logs", "--daemon").stdout == (
        "2027-01-15 08:00:00 info    daemon.ready             pid=99\n"
        "2027-01-15 08:00:01 info    job.running              job=mnist attempt=1\n"
        '2027-01-15 08:00:02 error   x                        job="a b"\nTraceback\n'
        "not json\n"
    )


def test_the_daemon_log_can_be_narrowed_down_to_a_job(trainerd, daemon_log):
    append(daemon_log, b'{"event": "job.finished", "job": "mnist"}\n{"event": "y", "job": "cifar"}\n')
    assert "job.running" in trainerd("logs", "--daemon", "mnist").stdout
    assert trainerd("logs", "--daemon", "mnist", "-n", 1, "--json").stdout == (
        '{"event": "job.finished", "job": "mnist"}\n'
    )


def test_the_daemon_log_is_followed_over_rotation(following, daemon_log):
    tail = following("logs", "--daemon", "-f", "--json")
    tail.wait_for(b"not json\n")
    daemon_log.rename(daemon_log.with_name("trainerd.jsonl.1"))
    append(daemon_log, b'{"event": "after"}\n')
    tail.wait_for(b'{"event": "after"}\n')
    assert tail.interrupt() == (0, b"")


def test_the_daemon_log_of_a_folder_without_one_is_an_error(trainerd, state):
    assert "there is no log" in trainerd("logs", "--daemon", code=1).stderr


def test_events_follows(following, supervisor):
    supervisor.events = [EventView(1, 0.0, "mnist", "job.running", "first")]
    tail = following("events", "-f")
    tail.wait_for(b"first\n")
    supervisor.events.append(EventView(2, 0.0, None, "daemon.stopping", "second"))
    assert (
        tail.wait_for(b"second\n")
        == b"1970-01-01 00:00:00  -                daemon.stopping          second\n"
    )
    assert tail.interrupt() == (0, b"")


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_ps_is_watched_on_a_terminal(following, supervisor, terminal):
    ours, theirs = terminal
    watch = following("ps", "--watch", stdout=theirs)
    watch.wait_for(b"running", ours)
    supervisor.jobs["mnist"] = job("mnist", "finished")
    watch.wait_for(b"finished", ours)
    assert watch.interrupt() == (0, b"")


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_they_are_not_wanted(
    following, supervisor, terminal, monkeypatch, no_color, is_coloured
):
    monkeypatch.setitem(WITHOUT_BUFFERS, "NO_COLOR", no_color)
    monkeypatch.setitem(WITHOUT_BUFFERS, "TERM", "xterm")
    ours, theirs = terminal
    table = following("ps", stdout=theirs).wait_for(b"queue", ours)
    assert (b"\x1b[32mrunning" in table) is is_coloured


def test_ps_is_watched_as_json_lines(following, supervisor):
    watch = following("ps", "--watch", "--json")
    watch.wait_for(b'"state": "running"')
    supervisor.jobs["mnist"] = dataclasses.replace(supervisor.jobs["mnist"], state="finished")
    line = watch.wait_for(b'"state": "finished"')
    assert b"\n" in line
    assert watch.interrupt() == (0, b"")
