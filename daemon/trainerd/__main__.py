"""`python -m trainerd` is the console script `trainerd`."""

import signal
import sys

from trainerd.contract.signals import STOP

_SUPERVISING = {"run", "exec"}
"""Verbs that supervise jobs, and answer a signal by draining them."""


def hold_signals(arguments: list[str]) -> None:
    """Hold the signals that ask for a stop until there is something to drain, for the verbs that do.

    Without a handler they would end the process, or be lost where it is process 1 of a container. The entry
    point of an image may hold them already; the other verbs let them through.
    """
    is_supervising = bool(arguments) and arguments[0] in _SUPERVISING
    signal.pthread_sigmask(signal.SIG_BLOCK if is_supervising else signal.SIG_UNBLOCK, STOP)


def main() -> None:
    """Run the command line, or say what to install where trainerd was installed for training only."""
    hold_signals(sys.argv[1:])
    from trainerd.cli.needs_daemon import refuse_without_daemon

    refuse_without_daemon()
    from trainerd.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
