"""The way out after a drain: limits, last words, streams."""

import contextlib
import os
import subprocess
import sys
import threading
import time
import types

import pytest

from trainerd.contract.exit_codes import DRAINED
from trainerd.errors import LockedError
from trainerd.training.interruption import departure as departure_module
from trainerd.training.interruption import leaving
from trainerd.training.interruption.departure import (
    GRACE_MARGIN_S,
    LEAVE_LIMIT_S,
    STREAM_LIMIT_S,
    Departure,
    flush_streams,
    leave_limit_s,
    within,
)
from trainerd.training.interruption.interactive import is_interactive
from trainerd.training.interruption.last_words import LastWords


@pytest.mark.parametrize(
    ("left_s", "limit_s"),
    [(None, LEAVE_LIMIT_S), (1000.0, LEAVE_LIMIT_S), (5.0, 5.0 - GRACE_MARGIN_S), (0.1, 0.0), (-3.0, 0.0)],
)
def test_the_cleanup_has_what_is_left_of_the_grace_period_and_no_more_than_the_limit(left_s, limit_s):
    assert leave_limit_s(left_s) == limit_s


def test_a_cleanup_that_is_not_over_in_time_is_ended():
    departure, ended = Departure(), threading.Event()
    departure.limit_s = 0.01
    departure.begin(ended.set)
    assert ended.wait(10)
    departure.call_off()


def test_a_process_leaves_by_an_exception_once_and_then_at_once(monkeypatch):
    departure, ended = Departure(), []
    monkeypatch.setattr(leaving, "DEPARTURE", departure)
    monkeypatch.setattr(leaving, "end_process", ended.append)
    with pytest.raises(SystemExit) as left:
        leaving.exit_process(DRAINED)
    assert (left.value.code, departure.is_begun, ended) == (DRAINED, True, [])
    with pytest.raises(SystemExit):
        leaving.exit_process(DRAINED)
    assert ended == [DRAINED]
    departure.call_off()


def test_a_stream_without_a_reader_does_not_change_the_exit_code(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        stream.write("for nobody")
        flush_streams()
        stream.flush()  # the interpreter's own, at its end


def test_last_words_are_bounded_in_time_and_their_errors_change_nothing():
    said, done = [], []
    words = LastWords(said.append)
    release = threading.Event()

    def fails():
        raise ValueError("no network")

    words.add(lambda: done.append("first"))
    words.add(fails)
    words.add(release.wait)
    words.add(lambda: done.append("too late"))
    words.run(0.05)
    words.run(0.05)  # each once
    release.set()
    assert done == ["first"]
    assert "raised ValueError: no network" in said[0]
    assert "took too long" in said[1]


def test_a_run_that_is_locked_is_no_traceback(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    leaving.show_user_errors_without_traceback()
    sys.excepthook(LockedError, LockedError("process 7 trains this run"), None)
    assert capsys.readouterr().err == "error: process 7 trains this run\n"


def test_a_notebook_is_told_from_a_script(monkeypatch):
    monkeypatch.delattr(sys, "ps1", raising=False)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not is_interactive()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=object))
    assert is_interactive()


def test_a_hang_in_the_teardown_of_the_interpreter_is_ended_with_the_code_of_a_drain():
    """Where no thread can take the interpreter lock, and after what was printed and written was flushed."""
    script = """
import sys, threading
from trainerd.training.interruption.departure import DEPARTURE
lock = threading.Lock(); lock.acquire()
class Hangs:
    def __del__(self, acquire=lock.acquire, write=__import__("os").write):
        write(1, b"torn down\\n"), acquire()
kept = Hangs()
DEPARTURE.limit_s = 0.2
DEPARTURE.begin(threading.get_ident)
print("printed")
sys.exit(85)
"""
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (85, "printed\ntorn down\n")
    assert time.monotonic() - began_s < 30


@pytest.mark.parametrize("way", ["flush", "say_last", "begin"])
def test_a_stream_that_blocks_does_not_keep_a_process_from_leaving(monkeypatch, way):
    release, ended = threading.Event(), threading.Event()
    blocked = types.SimpleNamespace(write=lambda _: release.wait(30), flush=lambda: release.wait(30))
    departure = Departure()
    departure.limit_s = 0.0
    monkeypatch.setattr(departure_module, "ExitTimer", lambda *_: types.SimpleNamespace(cancel=lambda: None))
    monkeypatch.setattr(leaving, "end_workers", lambda: None)
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", blocked)
        patch.setattr(sys, "stderr", blocked)
        began_s = time.monotonic()
        if way == "flush":
            leaving.end_process(DRAINED)
        elif way == "say_last":
            leaving.say_last("the last")
            ended.set()
        else:
            departure.begin(ended.set)
        took_s = time.monotonic() - began_s
        assert ended.wait(10)
    release.set()
    departure.call_off()
    assert took_s < STREAM_LIMIT_S + 5


def test_a_thread_that_trains_ends_the_process_and_not_only_itself(monkeypatch):
    departure, ended = Departure(), []
    monkeypatch.setattr(leaving, "DEPARTURE", departure)
    monkeypatch.setattr(leaving, "end_process", ended.append)

    def leave():
        with contextlib.suppress(SystemExit):  # what follows the end of a process that has not ended
            leaving.exit_process(DRAINED)

    within(30.0, leave)
    departure.call_off()
    assert ended == [DRAINED]
