"""The proofs that are programs of their own.

Power cuts, real filesystems, injected system calls, failpoints.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PROOFS: Final = {
    "power_cut": "every state that a power cut may leave of a save, a prune or a journal commit",
    "block_device": "real filesystems, shut down in mid-save",
    "syscall_faults": "the n-th write, sync, rename or close of a save fails or kills",
    "failpoint_sweep": "a kill at every failpoint of every durable act",
    "damage": "files of checkpoints cut short, flipped, emptied, swapped, removed",
}


def is_there(name: str) -> bool:
    """Return whether this checkout has a proof."""
    return importlib.util.find_spec(f"chaos.{name}") is not None


def run_proofs(say: Callable[[str], None]) -> dict[str, int]:
    """Run each proof as `python -m chaos.<name>`; return their exit codes.

    A proof that is missing is reported.
    """
    codes = {}
    for name, what in PROOFS.items():
        if not is_there(name):
            say(f"left out  {name}: not in this checkout")
            continue
        say(f"proof     {name}: {what}")
        done = subprocess.run([sys.executable, "-m", f"chaos.{name}"], check=False, stdout=sys.stderr)
        codes[name] = done.returncode
        say(f"{'held' if done.returncode == 0 else 'VIOLATED':9} {name}: exit code {done.returncode}")
        if done.returncode != 0:
            say(f"replay:   python -m chaos.{name}")
    return codes
