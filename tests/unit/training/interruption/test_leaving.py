"""Leaving: nothing that happens on the way out keeps a process from leaving."""

import os
import sys

import pytest
from torch.utils.data import DataLoader

from trainerd.training.interruption import leaving


def test_the_end_of_the_workers_does_not_hold_up_a_process_that_leaves():
    """torch raises for each worker that ends, in the main thread; it must not hit one that is about to
    exit."""
    child = os.fork()
    if child == 0:
        iterator = iter(DataLoader(list(range(1000)), num_workers=2, persistent_workers=True))
        next(iterator)
        try:
            leaving.end_workers()
            for _ in range(100_000):  # time for the signals of both to come in
                pass
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_users_mistake_is_shown_as_a_message(capsys, monkeypatch):
    from trainerd.errors import UserError

    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    leaving.show_user_errors_without_traceback()
    sys.excepthook(UserError, UserError("the model is upside down", hint="turn it"), None)
    assert capsys.readouterr().err == "error: the model is upside down\n  turn it\n"


@pytest.mark.parametrize("error", [MemoryError(), KeyError("x")])
def test_what_ended_an_attempt_is_on_record(tmp_path, error):
    from trainerd.contract import records

    leaving.record_exception(tmp_path / "outcome", error, step=3)
    found = records.read(tmp_path / "outcome", records.OutcomeRecord)
    assert (found.kind, found.step) == ("out-of-memory" if isinstance(error, MemoryError) else "exception", 3)
    assert found.error_type == type(error).__name__
