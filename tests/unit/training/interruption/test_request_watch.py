"""A stop that is asked for on the page is heard once, and not at all if the signal was heard."""

from __future__ import annotations

import signal
import threading

from trainerd.training.interruption import request_watch
from trainerd.training.interruption.request_watch import RequestWatch

LIMIT_S = 5.0


def watch(monkeypatch, asked, heard):
    """Return a watch that looks quickly, what it says, and when it has said it."""
    monkeypatch.setattr(request_watch, "LOOK_S", 0.001)
    said, has_said = [], threading.Event()

    def say(number):
        said.append(number)
        has_said.set()

    return RequestWatch(asked, is_heard=heard, say=say), said, has_said


def test_a_request_that_no_signal_has_brought_is_said_once(monkeypatch):
    found, said, has_said = watch(monkeypatch, lambda: signal.SIGTERM, lambda: False)
    found.start()
    assert has_said.wait(LIMIT_S)
    found._thread.join(LIMIT_S)
    assert said == [signal.SIGTERM]


def test_a_request_that_the_signal_brought_just_before_is_not_said_again(monkeypatch):
    """The page and the signal are written at the same moment: the page may be seen first."""
    looks = iter([False])  # the signal is heard after the look at the page
    found, said, _ = watch(monkeypatch, lambda: signal.SIGTERM, lambda: next(looks, True))
    found.start()
    found._thread.join(LIMIT_S)
    assert (said, found._thread.is_alive()) == ([], False)


def test_a_watch_that_was_stopped_looks_no_more(monkeypatch):
    looks = []
    found, said, _ = watch(monkeypatch, lambda: looks.append(1), lambda: False)
    found.start()
    found.stop()
    count = len(looks)
    assert not found._thread.is_alive()
    assert (said, len(looks)) == ([], count)


def test_one_that_never_began_can_be_stopped():
    RequestWatch(lambda: None, is_heard=lambda: False, say=print).stop()
