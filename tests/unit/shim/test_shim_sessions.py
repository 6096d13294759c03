"""Who is taken for a session of an attempt: never a process that only has the number of one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainerd.contract import codec
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.process import ProcessIdentity, identify
from trainerd.contract.session_record import FORMAT, SessionRecord
from trainerd.shim.attempt_sessions import RegisteredSessions
from trainerd.shim.rank_processes import RankProcesses

MARK = "/runs/ant/attempts/000001@0f0f0f0f-1-1"
SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def children():
    """Start processes that do nothing."""
    started = []

    def start(*command):
        process = subprocess.Popen(command or SLEEP, stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a shell has started too
        process.communicate()


@pytest.fixture
def paths(tmp_path):
    return AttemptPaths(tmp_path)


def register(paths, identity, rank=0, *, is_open=False):
    path = paths.session(identity.pid)
    path.write_bytes(codec.to_json(SessionRecord(identity, rank, is_open=is_open), FORMAT))
    return identity


def sessions(paths, nproc=1):
    return RegisteredSessions(paths, MARK, nproc)


def test_a_session_belongs_to_the_rank_whose_command_is_above_it(paths, children):
    shell = children("sh", "-c", "sleep 60 & echo $!; wait")
    below = register(paths, identify(int(shell.stdout.readline())), rank=7)
    assert sessions(paths, nproc=2).living({shell.pid: 1}) == {1: [below]}
    os.kill(below.pid, signal.SIGKILL)
    shell.wait()
    assert sessions(paths, nproc=2).living({shell.pid: 1}) == {}


def test_the_command_of_a_rank_may_be_the_session_itself(paths, children):
    itself = register(paths, identify(children().pid))
    assert sessions(paths).living({itself.pid: 0}) == {0: [itself]}


@pytest.mark.parametrize(("rank", "owner"), [(1, 1), (5, 0)], ids=["its own", "of a launcher"])
def test_a_session_whose_command_is_gone_belongs_to_the_rank_that_it_names(paths, children, rank, owner):
    orphan = register(paths, identify(children().pid), rank=rank)
    assert sessions(paths, nproc=2).living({}) == {owner: [orphan]}


def test_a_number_that_has_passed_to_another_process_is_nobody(paths, children):
    now = identify(children().pid)
    register(paths, ProcessIdentity(now.pid, now.start_ticks - 1, now.boot_id))
    assert sessions(paths).living({now.pid: 0}) == {}
    register(paths, ProcessIdentity(now.pid, now.start_ticks, "another boot"))
    assert sessions(paths).living({now.pid: 0}) == {}


def test_a_process_that_is_not_of_the_attempt_is_nobody(paths):
    register(paths, identify(os.getppid()))
    assert sessions(paths).living({}) == {}


def test_a_file_that_changes_is_read_again(paths, children):
    found = sessions(paths)
    first, second = children(), children()
    register(paths, identify(first.pid))
    assert [each.pid for each in found.living({})[0]] == [first.pid]
    record = json.loads(paths.session(first.pid).read_text())
    record["process"]["start_ticks"] += 1
    temporary = paths.root / "new"
    temporary.write_text(json.dumps(record))
    temporary.replace(paths.session(first.pid))
    register(paths, identify(second.pid))
    assert [each.pid for each in found.living({})[0]] == [second.pid]


@pytest.fixture
def sent(monkeypatch):
    """Collect who is signalled, by the descriptor's process."""
    sent = []

    def send(descriptor, signum):
        info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        pid = next(int(line.split()[1]) for line in info.splitlines() if line.startswith("Pid:"))
        sent.append((pid, signum))

    monkeypatch.setattr(signal, "pidfd_send_signal", send)
    monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append((pid, signum)))
    return sent


def test_a_request_goes_to_the_session_and_not_to_the_command_above_it(paths, children, sent):
    shell = children("sh", "-c", "sleep 60 & echo $!; wait")
    below = register(paths, identify(int(shell.stdout.readline())))
    processes = RankProcesses(sessions(paths))
    processes.started(0, identify(shell.pid))
    processes.forward(signal.SIGTERM, {0})
    assert sent == [(below.pid, signal.SIGTERM)]
    processes.tell_latecomers(signal.SIGTERM, processes.sessions())
    assert len(sent) == 1, "once"
    processes.kill({0})
    assert sent[1:] == [(shell.pid, signal.SIGKILL), (below.pid, signal.SIGKILL)]


def test_a_session_that_opens_after_the_request_is_told_and_a_command_that_was_told_is_not(
    paths, children, sent
):
    command, late = children(), children()
    processes = RankProcesses(sessions(paths))
    processes.started(0, identify(command.pid))
    processes.forward(signal.SIGTERM, {0})
    assert sent == [(command.pid, signal.SIGTERM)]
    register(paths, identify(command.pid))
    register(paths, identify(late.pid))
    processes.tell_latecomers(signal.SIGTERM, processes.sessions())
    assert sent[1:] == [(late.pid, signal.SIGTERM)]


IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


@pytest.mark.parametrize(
    ("is_open", "is_deaf", "hears"), [(True, True, False), (True, False, True), (False, True, True)]
)
def test_a_signal_that_would_end_an_open_session_is_not_sent(paths, children, sent, is_open, is_deaf, hears):
    """A session that a thread has opened has no handlers: it hears the request on the page."""
    process = children() if is_deaf else children(sys.executable, "-I", "-S", "-c", IGNORES)
    assert is_deaf or process.stdout.readline()
    register(paths, identify(process.pid), is_open=is_open)
    processes = RankProcesses(sessions(paths))
    processes.started(0, identify(process.pid))
    processes.forward(signal.SIGTERM, {0})
    assert bool(sent) == hears
    processes.tell_latecomers(signal.SIGTERM, processes.sessions())
    assert len(sent) == hears
