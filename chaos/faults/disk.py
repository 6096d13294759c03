"""A disk that is full, and a clock that jumps."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from chaos.faults.fault import Fault, Struck, register

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.faults.fault import Context

FULL_FOR_S: Final = 4.0
"""For so long the disk stays full before room is made."""

JUMP_S: Final = 86_400.0
_BLOCK: Final = bytes(65_536)


def _fill_disk(context: Context) -> Struck:
    """Fill the filesystem of the run to the last byte; make room some seconds later."""
    assert context.run.root.is_mount(), "only a run with a filesystem of its own may be filled"
    filler = context.run.root / "filler"
    filled_bytes = _fill(filler)
    context.harness.later(FULL_FOR_S, lambda: filler.unlink(missing_ok=True))
    return Struck(f"the disk is full, by {filled_bytes} bytes; room again after {FULL_FOR_S:g} s")


def _fill(path: Path) -> int:
    block = _BLOCK
    with path.open("wb", buffering=0) as file:
        while block:
            try:
                file.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                block = block[: len(block) // 2]
    return path.stat().st_size


def _jump(context: Context, by_s: float) -> Struck:
    context.harness.shift_clock(by_s)
    return Struck(f"the clock jumps by {by_s:+.0f} s")


register(
    Fault(
        "disk-full",
        "the disk is full for four seconds",
        _fill_disk,
        ("crashed",),
    )
)
register(Fault("clock-ahead", "the clock jumps a day ahead", lambda context: _jump(context, JUMP_S)))
register(Fault("clock-back", "the clock jumps a day back", lambda context: _jump(context, -JUMP_S)))
