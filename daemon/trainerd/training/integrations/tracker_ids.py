"""Identity of a run at a tracker, kept in the run folder: all attempts are one run there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.contract.durable import read_file, write_file
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BYTES_MAX: Final = 200


def kept_id(run_dir: Path, tracker: str, make: Callable[[], str]) -> str:
    """Return the identity that the run has at a tracker.

    Args:
        run_dir: The run folder.
        tracker: Name of the tracker.
        make: Makes the identity, of a run that has none yet.

    Raises:
        CorruptError: The file that holds it is damaged.
    """
    path = run_dir / f"{tracker}-run-id"
    try:
        data = read_file(path, bytes_max=_BYTES_MAX)
    except FileNotFoundError:
        made = make()
        write_file(path, f"{made}\n".encode())
        return made
    try:
        found = data.decode("ascii").strip()
    except UnicodeDecodeError:
        found = ""
    if not found or not found.replace("-", "").isalnum():
        raise CorruptError(
            f"{path}: not the identity of a run at {tracker}", hint="remove the file: a new run begins there"
        )
    return found
