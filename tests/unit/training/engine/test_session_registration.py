"""What a session says of itself in its attempt's folder, and what it hears there."""

from __future__ import annotations

import os
import signal
import time

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from trainerd.contract import environment, records  # noqa: E402
from trainerd.contract.paths import RunPaths  # noqa: E402
from trainerd.contract.process import identify  # noqa: E402
from trainerd.contract.records import OutcomeRecord  # noqa: E402
from trainerd.contract.request_page import ask_to_stop  # noqa: E402
from trainerd.contract.session_record import read_sessions  # noqa: E402

pytestmark = pytest.mark.torch

LIMIT_S = 10.0


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """An attempt as a supervisor prepares it."""
    paths = RunPaths(tmp_path).attempt(1)
    paths.root.mkdir(parents=True)
    monkeypatch.setenv(environment.RUN_DIR, str(tmp_path))
    monkeypatch.setenv(environment.ATTEMPT_DIR, str(paths.root))
    return paths


def test_a_session_is_registered_while_it_is_open_and_says_when_it_is_over(attempt):
    with trainerd.session() as session:
        session.track(model=torch.nn.Linear(1, 1))
        (found,) = read_sessions(attempt)
        assert (found.process, found.rank, found.is_open) == (identify(os.getpid()), 0, True)
    assert [found.is_open for found in read_sessions(attempt)] == [False]


def test_what_an_earlier_session_of_the_attempt_said_of_its_end_is_not_about_this_one(attempt):
    records.write(attempt.outcome(0), OutcomeRecord("finished", step=9))
    with trainerd.session() as session:
        session.track(model=torch.nn.Linear(1, 1))
        assert records.read(attempt.outcome(0), OutcomeRecord) is None


def test_a_stop_that_is_asked_for_on_the_page_is_heard_with_no_signal(attempt):
    with trainerd.session() as session:
        session.track(model=torch.nn.Linear(1, 1))
        ask_to_stop(attempt.requests, signal.SIGTERM)
        deadline_s = time.monotonic() + LIMIT_S
        while not session._run.flag.is_set and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert (session._run.flag.is_set, session._run.flag.reason) == (True, "SIGTERM")
