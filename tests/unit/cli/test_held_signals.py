"""Signals that come while the command line starts."""

import os
import signal

import pytest

from trainerd.__main__ import hold_signals
from trainerd.contract.signals import STOP


@pytest.mark.parametrize(
    ("arguments", "is_held"),
    [(["run"], True), (["exec", "job.yaml"], True), (["logs", "-f"], False), ([], False)],
)
@pytest.mark.parametrize("was_held", [False, True], ids=["", "held before"])
def test_the_verbs_that_drain_hold_what_asks_for_it_from_their_first_instruction(
    arguments, is_held, was_held
):
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK if was_held else signal.SIG_UNBLOCK, STOP)
        hold_signals(arguments)
        held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        os._exit(0 if held & STOP == (STOP if is_held else set()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
