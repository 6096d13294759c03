"""The run folder must be one folder that all ranks see: found out at the start, not at the first save."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Final

from trainerd.contract.durable import make_directory
from trainerd.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.training.distributed.rank_store import Ranks

SEEN_LIMIT_S: Final = 20.0
"""How long a network filesystem may take to show a new file to another host, in seconds."""
_LOOK_S: Final = 0.05


def check_shared(ranks: Ranks, folder: Path, *, limit_s: float = SEEN_LIMIT_S) -> None:
    """Check that all ranks see what rank 0 writes into a folder.

    Raises:
        UserError: One does not. All ranks raise it.
        RankLostError: A rank is gone.
    """

    def write() -> str:
        make_directory(folder)
        name = f".seen-by-all-ranks-{secrets.token_hex(8)}"
        (folder / name).touch()
        return name

    probe = folder / ranks.agreed("shared/probe", write)
    deadline_s = time.monotonic() + limit_s
    while not (is_seen := _is_listed(probe)) and time.monotonic() < deadline_s:
        time.sleep(_LOOK_S)
    try:
        seen = ranks.gather("shared/seen", None if is_seen else f"{socket.gethostname()}:{folder}")
    finally:
        if ranks.rank == 0:
            with contextlib.suppress(OSError):
                probe.unlink()
    blind = [f"rank {rank} ({where})" for rank, where in enumerate(seen) if where is not None]
    if blind:
        raise UserError(
            f"the run folder is not shared: {', '.join(blind)} does not see what rank 0 wrote there",
            hint="put the run folder on a filesystem that all hosts share; node-local disks cannot hold one "
            "checkpoint of all ranks",
        )


def _is_listed(path: Path) -> bool:
    """Look at the listing: asking for a name that was not there would be answered from a cache."""
    try:
        return path.name in os.listdir(path.parent)  # noqa: PTH208 - the names alone
    except OSError:
        return False
