"""Processes that wait for an attempt (`standby: auto`): the memory and the processor time that they take."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import psutil

from trainerd.shim.survivors import WAITING_TITLE
from trainerd.supervisor.doctor.finding import ok, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.supervisor.doctor.finding import Finding

CHECK: Final = "standby"


def check_standbys() -> Iterator[Finding]:
    """Look for processes that wait, those that `trainerd exec` has left behind included."""
    is_any = False
    for shim in psutil.process_iter(["cmdline"]):
        title = " ".join(shim.info["cmdline"] or ())
        for standby in _children(shim) if title.startswith(WAITING_TITLE) else ():
            with contextlib.suppress(psutil.Error):
                yield ok(CHECK, f"{title.removeprefix(WAITING_TITLE).strip()}: {_in_words(standby)}")
                is_any = True
    if not is_any:
        yield skipped(CHECK, "no process waits for an attempt")


def _in_words(standby: psutil.Process) -> str:
    memory, cpu = standby.memory_full_info(), standby.cpu_times()
    return (
        f"process {standby.pid} holds {memory.rss / 1e6:.0f} MB, {memory.uss / 1e6:.0f} MB of it not shared, "
        f"and has used {cpu.user + cpu.system:.1f} s of processor time"
    )


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []
