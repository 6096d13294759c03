"""`python -m trainerd.shim ATTEMPT_DIR [--ready-fd N]`; or one that waits: `fork_server`, `prepared`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract.clock import SystemClock
from trainerd.contract.exit_codes import FAILED, USAGE
from trainerd.contract.paths import AttemptPaths
from trainerd.errors import TrainerdError
from trainerd.shim import kernel
from trainerd.shim.attempt import RankGroup
from trainerd.shim.entry import admit
from trainerd.shim.fork_server import await_order
from trainerd.shim.notes import note
from trainerd.shim.standby_recipe import PREPARED_OPTION, RECIPE_DESCRIPTOR, read_recipe
from trainerd.shim.survivors import WAITING_TITLE

if TYPE_CHECKING:
    from trainerd.shim.fork_server import Order
    from trainerd.shim.standby_process import StandbyProcess


def main(arguments: list[str]) -> int:
    """Mind one attempt from its first moment to its exit record."""
    ready_descriptor: int | None = None
    standby = None
    match arguments:
        case ["--template", *_]:  # what follows is room for the titles of those it forks
            folder = ""
        case [option, *_] if option == PREPARED_OPTION:
            folder, ready_descriptor = "", RECIPE_DESCRIPTOR
        case [folder]:
            pass
        case [folder, "--ready-fd", number] if number.isdigit():
            ready_descriptor = int(number)
        case _:
            note("usage: python -m trainerd.shim ATTEMPT_DIR [--ready-fd N] | --template | --prepared")
            return USAGE
    kernel.close_inherited(keep=ready_descriptor)
    kernel.hold_signals()
    kernel.become_session_leader()
    order = None
    if not folder:
        if ready_descriptor == RECIPE_DESCRIPTOR:
            prepared = _await_prepared()
            order, standby = prepared if prepared is not None else (None, None)
        else:
            order = await_order()
        if order is None:
            return 0
        folder, ready_descriptor = order.folder, order.ready_descriptor
        kernel.write_notes_to(AttemptPaths(Path(folder)).shim_log)
    kernel.become_subreaper()
    paths = AttemptPaths(Path(folder).absolute())
    if order is not None:
        kernel.set_title(
            f"trainerd-shim {paths.root.parent.parent.name} attempt {paths.root.name}: {paths.root}"
        )
    os.chdir("/")
    clock = SystemClock()
    try:
        with admit(paths, clock) as admission:
            attempt = RankGroup(paths, admission, clock, ready_descriptor=ready_descriptor, standby=standby)
            attempt.start_ranks()
            attempt.mind_ranks()
            attempt.conclude()
    except (TrainerdError, OSError) as error:
        note(str(error))
        return FAILED
    return 0


def _await_prepared() -> tuple[Order, StandbyProcess] | None:
    kernel.become_subreaper()
    try:
        recipe = read_recipe()
    except TrainerdError as error:
        note(str(error))
        return None
    kernel.set_title(f"{WAITING_TITLE} {recipe.launch.job} attempt {Path(recipe.attempt_dir).name}")
    os.chdir("/")
    from trainerd.shim.prepared import await_launch  # sockets and more, which an ordinary shim does without

    return await_launch(recipe)


if __name__ == "__main__":
    # Nothing is buffered and no process is left to wait for: the supervisor learns of the end some
    # milliseconds earlier.
    os._exit(main(sys.argv[1:]))
