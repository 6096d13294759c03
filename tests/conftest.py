"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """See to it that Ctrl-C reaches what the tests start.

    A shell that puts the suite in the background has it ignore SIGINT, and so would every program that a test
    interrupts: what is ignored stays so across exec, what is handled begins anew.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
