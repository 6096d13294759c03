"""The command: cuts of ext4 and XFS at random moments, and protocols known to be wrong as controls."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

from chaos.block_device.cuts import cut_repeatedly
from chaos.block_device.filesystem import KINDS, missing, own_mounts
from chaos.block_device.work import WORKS
from chaos.waiting import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.block_device.cuts import Cut

__all__ = ["CONTROLS", "main"]

CONTROL_TRIES: Final = 40
"""A control is cut so often at most; once it has lost something, that is enough."""


def no_sync() -> None:
    """Known to be wrong: write beside, rename, never sync."""
    mock.patch("os.fsync", return_value=None).start()


def no_folder_sync() -> None:
    """Known to be wrong: sync every file and no folder."""
    real = os.fsync

    def files_only(descriptor: int) -> None:
        if not Path(f"/proc/self/fd/{descriptor}").is_dir():
            real(descriptor)

    mock.patch("os.fsync", files_only).start()


CONTROLS: Final[tuple[tuple[str, Callable[[], None], str, bool], ...]] = (
    ("no sync, record", no_sync, "record", True),
    ("no sync, save", no_sync, "save", True),
    ("no folder sync, record", no_folder_sync, "record, reported", False),
    ("no folder sync, save", no_folder_sync, "save, reported", False),
)
"""What is done without which sync, and whether an unrelated fsync comes just before the cut."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if nothing was lost and every control was caught."""
    parser = argparse.ArgumentParser(prog="python -m chaos.block_device", description=__doc__)
    parser.add_argument(
        "--cuts", type=int, default=200, metavar="N", help="in all, shared among the filesystems"
    )
    parser.add_argument("--filesystem", action="append", choices=KINDS, help="only this one; may be repeated")
    parser.add_argument("--work", action="append", choices=WORKS, help="only this; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    kinds = options.filesystem or list(KINDS)
    if lacking := [f"{kind}: {why}" for kind in kinds if (why := missing(kind)) is not None]:
        print("\n".join(lacking), file=sys.stderr)
        return 2
    works = tuple(options.work or WORKS)
    lost = uncaught = 0
    try:
        own_mounts()
        for kind in kinds:
            result = cut_repeatedly(kind, -(-options.cuts // len(kinds)), seed=options.seed, works=works)
            each_s = result.duration_s / len(result.cuts)
            shares = ", ".join(f"{count} {name}" for name, count in result.by_work.items())
            print(
                f"{kind:<5} {len(result.cuts)} cuts ({shares}), {each_s:.2f} s each: "
                f"{len(result.broken)} lost anything"
            )
            for cut in result.broken:
                print(f"    LOST: {_told(cut)}")
            lost += len(result.broken)
        for kind in kinds:
            for name, spoil, work, is_committed in CONTROLS:
                control = cut_repeatedly(
                    kind,
                    CONTROL_TRIES,
                    seed=options.seed,
                    works=(work,),
                    spoil=spoil,
                    is_committed=is_committed,
                    stops_at=1,
                )
                uncaught += not control.broken
                found = _told(control.broken[0]) if control.broken else "NOT CAUGHT"
                print(f"{kind:<5} control, {name}: caught at cut {len(control.cuts)}: {found}", flush=True)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{lost} cuts lost anything; {uncaught} controls were not caught (seed {options.seed})")
    return 1 if lost or uncaught else 0


def _told(cut: Cut) -> str:
    moment = f"{cut.work}, {cut.after_s * 1000:.1f} ms after its beginning"
    commit = ", an unrelated fsync just before" if cut.is_committed else ""
    return f"{moment}{commit}, last word {cut.last_said!r}: {cut.complaint}"
