"""A request that comes while the shim holds the signals, and that no session answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from trainerd.contract.environment import GRACE_S
from trainerd.contract.signals import SIGNALS_HELD
from trainerd.training.interruption import early_signals
from trainerd.training.interruption.early_signals import EarlySignals

HELD = """
import os, signal, sys, time
import trainerd
from trainerd.training.interruption.early_signals import EARLY
os.kill(os.getpid(), signal.SIGTERM)
if sys.argv[1] == "opens":
    assert EARLY.release() is not None
    time.sleep(0.6)
    sys.exit(0)
time.sleep(60)
"""


def ended(how: str, *, grace_s: float) -> tuple[int, str, float]:
    began_s = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", HELD, how],
        env=os.environ | {SIGNALS_HELD: "1", GRACE_S: str(grace_s)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return process.returncode, process.stderr, time.monotonic() - began_s


def test_a_request_that_no_session_answers_ends_the_program_before_the_grace_period_is_over():
    code, said, took_s = ended("waits", grace_s=0.8)
    assert code == -signal.SIGTERM
    assert "no session was opened within 0.4 s of SIGTERM: ends now" in said
    assert took_s < 30


def test_a_session_that_opens_in_time_is_left_alone():
    code, said, _ = ended("opens", grace_s=0.8)
    assert (code, "ends now" in said) == (0, False)


class Heard:
    def hear(self, number: signal.Signals, at_s: float) -> None: ...

    def notice(self, number: int) -> None: ...


@pytest.mark.parametrize(("is_answered", "ended"), [(False, [signal.SIGUSR1]), (True, [])], ids=str)
def test_a_request_that_a_thread_has_answered_is_never_called_unanswered(is_answered, ended, monkeypatch):
    sent: list[int] = []
    monkeypatch.setattr(early_signals.signal, "pthread_kill", lambda _, number: sent.append(number))
    monkeypatch.setattr(early_signals, "_limit_s", lambda: 1.0)
    monkeypatch.setattr(early_signals._thread, "start_new_thread", lambda *_: None)
    early = EarlySignals()
    former = signal.signal(
        signal.SIGUSR1, signal.SIG_DFL
    )  # it takes over no signal that another test handles
    try:
        early.take_over()
        signal.raise_signal(signal.SIGUSR1)
        if is_answered:
            early.tell(Heard())
            early.tell(None)  # its session is over, and the program still cleans up
        early._end_unanswered(signal.SIGUSR1, 0.0)
    finally:
        early.release()
        signal.signal(signal.SIGUSR1, former)
    assert sent == ended
