"""A drain in a process that an engine holds: what the engine hears, in place of the end of the process."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("torch")

import trainerd
from trainerd.contract import records
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord

pytestmark = pytest.mark.torch


class Taken(Exception):  # noqa: N818 - what it stands for is no error
    """What an engine would raise."""


def in_a_thread(call) -> BaseException | None:
    raised = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is what is tested
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return raised[0] if raised else None


def train(folder) -> None:
    with trainerd.session(folder, signals=False, strict=False) as session:
        session._run.exit.ends_with = lambda reason: Taken(reason, 7)
        for number in session.steps(5):
            if number == 2 and session.attempt == 1:
                session.ask_to_stop("a notice")


def test_the_thread_that_trains_raises_it_and_the_next_attempt_goes_on(tmp_path, capsys):
    error = in_a_thread(lambda: train(tmp_path))
    assert type(error) is Taken
    assert error.args == ("a notice", 7)
    run = RunPaths(tmp_path)
    outcome = records.read(run.attempt(1).outcome(0), OutcomeRecord)
    assert (outcome.kind, outcome.step) == ("drained", 3)
    assert "leaving the function" in capsys.readouterr().err
    assert in_a_thread(lambda: train(tmp_path)) is None
    assert run.finished.exists()


def test_a_script_that_catches_it_leaves_all_the_same(tmp_path):
    def caught() -> None:
        with trainerd.session(tmp_path, signals=False, strict=False) as session:
            session._run.exit.ends_with = Taken
            try:
                for _ in session.steps(5):
                    session.ask_to_stop("a notice")
            except Exception:  # noqa: BLE001 - as scripts do
                pass

    assert type(in_a_thread(caught)) is Taken
