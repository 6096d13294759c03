"""Who trains: what a process says of itself, and what is made of anything else in that place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from trainerd.contract import session_record
from trainerd.contract.ancestry import line_of_descent, parent_pid, short_command
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.process import identify
from trainerd.contract.session_record import (
    FORMAT,
    close_session,
    read_sessions,
    register_session,
    shim_pid_of,
)


def test_a_process_that_registers_is_known_by_number_and_start(tmp_path):
    register_session(AttemptPaths(tmp_path), rank=3, shim_pid=os.getppid())
    (found,) = read_sessions(AttemptPaths(tmp_path))
    assert (found.process, found.rank) == (identify(os.getpid()), 3)
    assert found.chain == (f"{short_command(os.getpid())} (pid {os.getpid()})",)
    assert [path.name for path in tmp_path.iterdir()] == [f"session-{os.getpid()}.json"]


def test_one_that_registers_again_is_there_once(tmp_path):
    for rank in (0, 1):
        register_session(AttemptPaths(tmp_path), rank=rank, shim_pid=None)
    assert [found.rank for found in read_sessions(AttemptPaths(tmp_path))] == [1]


def test_a_session_that_is_closed_is_known_as_such(tmp_path):
    paths = AttemptPaths(tmp_path)
    found = register_session(paths, rank=0, shim_pid=None)
    assert [each.is_open for each in read_sessions(paths)] == [True]
    close_session(paths, replace(found, process=replace(found.process, pid=1)))  # as a forked child would
    assert [each.is_open for each in read_sessions(paths)] == [True]
    close_session(paths, found)
    assert [each.is_open for each in read_sessions(paths)] == [False]


def test_processes_of_two_containers_with_one_number_are_both_there(tmp_path, monkeypatch):
    paths = AttemptPaths(tmp_path)
    found = []
    for namespace in (11, 22, 22):
        monkeypatch.setattr(session_record, "pid_namespace", lambda _pid, namespace=namespace: namespace)
        found.append(register_session(paths, rank=0, shim_pid=None))
    close_session(paths, found[-1])
    assert sorted((each.pid_namespace, each.is_open) for each in read_sessions(paths)) == [
        (11, True),
        (22, False),
    ]


def test_the_first_process_of_a_container_has_the_number_1(tmp_path):
    (tmp_path / "session-1.json").write_bytes(
        json.dumps(json.loads(record(pid=1)) | {"pid_namespace": 11}).encode()
    )
    assert [each.process.pid for each in read_sessions(AttemptPaths(tmp_path))] == [1]


def test_a_process_without_a_shim_above_it_is_its_own_chain(tmp_path):
    found = register_session(AttemptPaths(tmp_path), rank=0, shim_pid=1 << 21)
    assert len(found.chain) == 1


def record(pid=99, rank=0):
    process = {"pid": pid, "start_ticks": 1, "boot_id": "b"}
    return json.dumps({"format": FORMAT, "process": process, "rank": rank}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[1]",
        b"{" * 5000,
        f'{{"format": "{FORMAT}", "process": 5, "rank": 0}}'.encode(),
        record(pid=1),
        record(pid=-7),
        record(rank=-1),
        b" " * (1 << 20),
    ],
    ids=["empty", "text", "list", "deep", "kind", "init", "negative", "rank", "large"],
)
def test_what_is_no_such_record_is_nobody(tmp_path, data):
    (tmp_path / "session-7.json").write_bytes(data)
    os.mkfifo(tmp_path / "session-8.json")
    assert read_sessions(AttemptPaths(tmp_path)) == ()


@pytest.mark.parametrize(
    ("mark", "pid"),
    [("/runs/a/attempts/000001@0f0f0f0f-123-456", 123), ("/runs/a:1", None), ("", None), ("/x@a-b-c", None)],
)
def test_the_shim_is_known_from_the_mark_of_its_attempt(mark, pid):
    assert shim_pid_of(mark) == pid


def test_the_line_from_an_ancestor_leads_through_all_in_between():
    assert line_of_descent(os.getpid(), os.getppid()) == (os.getpid(),)
    grandparent = parent_pid(os.getppid())
    if grandparent:
        assert line_of_descent(os.getpid(), grandparent) == (os.getppid(), os.getpid())
    assert line_of_descent(os.getppid(), os.getpid()) == ()
    assert line_of_descent(1 << 21, os.getpid()) == ()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["-c", "import sys; print('up', flush=True); sys.stdin.read()", "--key", "secret"], ""),
        (["-u", "SCRIPT", "--key", "secret"], " wait.py"),
        (["-u", "-m", "wait", "secret"], " -m wait"),
    ],
    ids=["code", "script", "module"],
)
def test_a_command_is_shown_without_what_may_be_secret(tmp_path, words, shown):
    script = tmp_path / "wait.py"
    script.write_text("import sys; print('up', flush=True); sys.stdin.read()")
    words = [str(script) if word == "SCRIPT" else word for word in words]
    with subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline()
        assert short_command(process.pid) == os.path.basename(sys.executable) + shown  # noqa: PTH119
        process.stdin.close()
