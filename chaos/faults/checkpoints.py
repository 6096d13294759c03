"""Damage to the newest checkpoint; the rank is killed with it, so that it must be resumed from what is left.

Only while an older one verifies: that nothing is left when everything is destroyed is no finding.
"""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

from chaos import second_reader
from chaos.faults.fault import Fault, Struck, register
from chaos.faults.processes import send
from chaos.waiting import NotNowError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.faults.fault import Context

    Damage = Callable[[Path, Context], str]


def _strike(damage: Damage) -> Callable[[Context], Struck]:
    def strike(context: Context) -> Struck:
        pid = context.rank_pid()
        # Killed first: a rank that goes on would make a new checkpoint and prune the damaged one unread.
        send(pid, signal.SIGSTOP)
        try:
            newest = _newest_of_two(context)
            said = damage(newest, context)
        except (FileNotFoundError, NotNowError) as error:
            send(pid, signal.SIGCONT)
            raise NotNowError(str(error)) from error
        send(pid, signal.SIGKILL)
        return Struck(f"{newest.name}: {said}; then SIGKILL to rank {context.rank}, pid {pid}")

    return strike


def _newest_of_two(context: Context) -> Path:
    checkpoints = second_reader.checkpoints(context.run.checkpoints)
    if len(checkpoints) < 2 or not any(second_reader.is_sound(one) for one in checkpoints[:-1]):
        raise NotNowError(f"{context.job} has no two sound checkpoints")
    return checkpoints[-1]


def _some_file(checkpoint: Path, context: Context) -> Path:
    return context.random.choice(sorted(path for path in checkpoint.iterdir() if path.is_file()))


def _truncate(checkpoint: Path, context: Context) -> str:
    path = _some_file(checkpoint, context)
    left_bytes = context.random.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(left_bytes)
    return f"{path.name} truncated to {left_bytes} bytes"


def _flip_bit(checkpoint: Path, context: Context) -> str:
    path = _some_file(checkpoint, context)
    data = bytearray(path.read_bytes())
    at, bit = context.random.randrange(len(data)), context.random.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {at} of {path.name} flipped"


def _remove_file(checkpoint: Path, context: Context) -> str:
    path = _some_file(checkpoint, context)
    path.unlink()
    return f"{path.name} removed"


def _empty_file(checkpoint: Path, context: Context) -> str:
    path = _some_file(checkpoint, context)
    path.write_bytes(b"")
    return f"{path.name} emptied"


def _swap(checkpoint: Path, _context: Context) -> str:
    """Put a file of another step in place: sound by itself, and not what the manifest speaks of."""
    older = second_reader.checkpoints(checkpoint.parent)[-2]
    for path in sorted(checkpoint.glob("rank-*")):
        if path.read_bytes() != (older / path.name).read_bytes():
            shutil.copyfile(older / path.name, path)
            return f"{path.name} replaced by that of {older.name}"
    raise NotNowError("the two newest checkpoints are equal")


def _leave_staging(context: Context) -> Struck:
    """Leave what a crash in the middle of a save leaves."""
    pid = context.rank_pid()
    checkpoints = second_reader.checkpoints(context.run.checkpoints)
    if not checkpoints:
        raise NotNowError(f"{context.job} has no checkpoint")
    stale = context.run.checkpoints / f".staging-{checkpoints[-1].name}-{pid}-99"
    try:
        shutil.copytree(checkpoints[-1], stale)
    except (FileNotFoundError, shutil.Error) as error:  # it was pruned in the meantime
        shutil.rmtree(stale, ignore_errors=True)
        raise NotNowError(f"{checkpoints[-1].name} is gone") from error
    (stale / "manifest.json").unlink()
    send(pid, signal.SIGKILL)
    return Struck(f"{stale.name} left behind; SIGKILL to rank {context.rank}, pid {pid}")


for name, what, damage in (
    ("checkpoint-truncated", "a file of the newest checkpoint is truncated", _truncate),
    ("checkpoint-bit-flipped", "a bit in the newest checkpoint flips", _flip_bit),
    ("checkpoint-file-missing", "a file of the newest checkpoint is gone", _remove_file),
    ("checkpoint-file-empty", "a file of the newest checkpoint is empty", _empty_file),
    ("checkpoint-swapped", "a file of the newest checkpoint is that of another step", _swap),
):
    register(Fault(name, what, _strike(damage), ("killed",), costs_checkpoints=1, soak_weight=0.5))
register(
    Fault(
        "stale-staging",
        "an unfinished checkpoint is left behind",
        _leave_staging,
        ("killed",),
        soak_weight=0.5,
    )
)
