"""A shim that was started in advance: it keeps a standby process until it is told to mind an attempt.

Its standard input is a socket that keeps messages apart, on which it tells how the standby is (``ready
BYTES``, ``unfit WHY``) and takes one order: an attempt's folder, and with it a descriptor that is closed when
the ranks are on record. It then is the shim of that attempt, like any other. Or it is told to wait for the
order of another process (`parking`).

Invariants: it has recorded nothing and holds no lock before the order. It ends, with the standby, when the
other end of the socket is closed, when the standby has ended or is unfit, and when a named limit is over.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.module_note import ModuleNote, read_note
from trainerd.contract.process import identify
from trainerd.errors import TrainerdError
from trainerd.shim.environment_file import read_environment_file
from trainerd.shim.fork_server import Order
from trainerd.shim.held_start import held_at_start
from trainerd.shim.parking import PARK, is_asked_to_end, wait_parked
from trainerd.shim.spawn import rank_start
from trainerd.shim.standby_cgroup import StandbyCgroup
from trainerd.shim.standby_process import PREPARE_LIMIT_S, StandbyProcess, wait_for
from trainerd.shim.survivors import attempt_mark

if TYPE_CHECKING:
    from trainerd.contract.process import ProcessIdentity
    from trainerd.shim.standby_recipe import StandbyRecipe

ORDER_LIMIT_S: Final = 5.0
"""How long one that has waited parked may wait for the order of the process that has found it."""

_ORDER_BYTES: Final = 16 * 1024
_ANSWER_BYTES: Final = 4096


def await_launch(recipe: StandbyRecipe) -> tuple[Order, StandbyProcess] | None:
    """Prepare a standby; return the order and the standby, None if there is nothing to wait for any more."""
    # The number 0 is put to another use afterwards.
    orders = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    own = identify(os.getpid())
    assert own is not None, "/proc shows a process to itself"
    try:
        standby = _prepare(recipe, own)
    except (TrainerdError, OSError) as error:
        _tell(orders, f"unfit {error}")
        return None
    is_ready = False
    deadline_s: float | None = time.monotonic() + PREPARE_LIMIT_S
    while True:
        readable = wait_for(
            [orders.fileno(), standby.channel.fileno()],
            None if deadline_s is None else deadline_s - time.monotonic(),
        )
        if orders.fileno() in readable:
            try:
                folder, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 1)
            except OSError:
                break
            if folder.startswith(PARK) and is_ready:
                parked = wait_parked(
                    folder.removeprefix(PARK), orders, lambda: bool(wait_for([standby.channel.fileno()], 0.0))
                )
                if parked is None:
                    break
                orders, deadline_s = parked, time.monotonic() + ORDER_LIMIT_S
                continue
            if not folder or not descriptors or is_asked_to_end():
                break
            os.set_inheritable(descriptors[0], False)
            _tell(orders, f"{own.pid} {own.start_ticks}")
            orders.close()
            return Order(os.fsdecode(folder), descriptors[0]), standby
        if not readable:
            _tell(orders, f"unfit it was not ready within {PREPARE_LIMIT_S:g} s, or had no order in time")
            break
        answer = _hear(standby)
        if is_ready or answer != "ready":
            _tell(orders, answer if answer.startswith("unfit ") else "unfit its process has ended")
            break
        is_ready, deadline_s = True, None
        _tell(orders, f"ready {standby.memory_bytes()}")
    standby.end()
    if standby.cgroup is not None:
        standby.cgroup.remove()
    return None


def _prepare(recipe: StandbyRecipe, own: ProcessIdentity) -> StandbyProcess:
    launch = recipe.launch
    secrets = read_environment_file(Path(launch.env_file)) if launch.env_file is not None else {}
    mark = attempt_mark(Path(recipe.attempt_dir).absolute(), own)
    held = held_at_start(launch.command, launch.workdir)
    start = rank_start(launch, secrets, held, rank=0, mark=mark, master_port=None)
    seen = read_note(Path(recipe.note_path)) or ModuleNote(0, (), (), ())
    cgroup = None
    if launch.memory_bytes is not None:
        cgroup = StandbyCgroup(Path(recipe.cgroup_record), launch, own)
    try:
        return StandbyProcess(start, seen, cgroup=cgroup)
    except (TrainerdError, OSError):
        if cgroup is not None:
            cgroup.remove()
        raise


def _hear(standby: StandbyProcess) -> str:
    try:
        return standby.channel.recv(_ANSWER_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _tell(orders: socket.socket, message: str) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone, which the next look shows
        orders.send(message.encode(errors="replace")[:_ANSWER_BYTES])
