"""`python -m trainerd.supervisor.shim ATTEMPT_DIR [--ready-fd N]`.

With ``--spare`` the folder is the first line of standard input; there is nothing to do if that ends before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trainerd.contract.clock import SystemClock
from trainerd.contract.exit_codes import FAILED, USAGE
from trainerd.contract.paths import AttemptPaths
from trainerd.errors import TrainerdError
from trainerd.supervisor.shim import kernel
from trainerd.supervisor.shim.attempt import Attempt
from trainerd.supervisor.shim.entry import admit
from trainerd.supervisor.shim.notes import note


def main(arguments: list[str]) -> int:
    """Mind one attempt from its first moment to its exit record."""
    ready_descriptor: int | None = None
    match arguments:
        case ["--spare", "--ready-fd", number] if number.isdigit():
            folder, ready_descriptor = "", int(number)
        case [folder]:
            pass
        case [folder, "--ready-fd", number] if number.isdigit():
            ready_descriptor = int(number)
        case _:
            note("usage: python -m trainerd.supervisor.shim ATTEMPT_DIR|--spare [--ready-fd N]")
            return USAGE
    kernel.close_inherited(keep=ready_descriptor)
    kernel.hold_signals()
    kernel.become_session_leader()
    kernel.become_subreaper()
    if not folder:
        folder = kernel.await_order()
        if not folder:
            return 0
        kernel.write_notes_to(AttemptPaths(Path(folder)).shim_log)
    paths = AttemptPaths(Path(folder).absolute())
    os.chdir("/")
    clock = SystemClock()
    try:
        with admit(paths, clock) as admission:
            attempt = Attempt(paths, admission, clock, ready_descriptor=ready_descriptor)
            attempt.start_ranks()
            attempt.mind_ranks()
            attempt.conclude()
    except (TrainerdError, OSError) as error:
        note(str(error))
        return FAILED
    return 0


if __name__ == "__main__":
    # Nothing is buffered and nobody is left to wait for: the supervisor learns of the end some milliseconds earlier.
    os._exit(main(sys.argv[1:]))
