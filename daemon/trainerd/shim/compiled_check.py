"""Removes, before the ranks start, compiled code that is not known to be whole: see `contract.compiled_code`.

Invariants: what stays was whole when the record was written, or was renamed into place in this boot. Nothing
is changed outside the folder, and no link is followed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from trainerd.contract import records
from trainerd.contract.compiled_code import (
    WholeFile,
    files_below,
    is_built_in_place,
    is_temporary,
    is_unchanged,
    look_at,
    read_compiled,
)
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.records import ShimRecord
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Callable

CHECK_LIMIT_S: Final = 20.0
"""How long files are read after another boot; what was not read by then is removed."""


class CheckedCode(NamedTuple):
    """What was found.

    Attributes:
        kept: How many files stay.
        removed: How many were removed.
    """

    kept: int
    removed: int


def is_same_boot(attempt: Path, boot: str) -> bool:
    """Tell whether the attempt before this one ran in this boot of this machine, by the record of its shim.

    Args:
        attempt: Folder of this attempt.
        boot: Id of this boot.
    """
    number = int(attempt.name) if attempt.name.isascii() and attempt.name.isdigit() else 0
    for earlier in range(number - 1, 0, -1):
        try:
            shim = records.read(AttemptPaths(attempt.with_name(f"{earlier:06d}")).shim, ShimRecord)
        except (TrainerdError, OSError):
            return False
        if shim is not None:
            return shim.process.boot_id == boot
    return False


def check_compiled(
    folder: Path, *, is_same_boot: bool, clock: Callable[[], float] = time.monotonic
) -> CheckedCode:
    """Remove what is not known to be whole.

    Args:
        folder: The folder of the record.
        is_same_boot: Whether nothing but the death of processes can have happened since the last attempt.
        clock: Measures `CHECK_LIMIT_S`.
    """
    record = read_compiled(folder)
    known = {each.path: each for each in record.files} if record is not None else {}
    deadline_s = clock() + CHECK_LIMIT_S
    found = list(files_below(folder))
    bad = set()
    for path in found:
        if is_temporary(path):
            is_whole = False
        elif is_same_boot:
            is_whole = not is_built_in_place(path) or (path in known and is_unchanged(folder, known[path]))
        else:
            is_whole = path in known and clock() < deadline_s and _has_same_content(folder, known[path])
        if not is_whole:
            bad.add(path)
    # The files of one kernel of Triton's belong together.
    torn = {
        os.path.dirname(path)  # noqa: PTH120 - a name
        for path in bad
        if path.startswith("triton/") and not is_temporary(path)
    }
    bad |= {path for path in found if os.path.dirname(path) in torn}  # noqa: PTH120
    for path in bad:
        (folder / path).unlink(missing_ok=True)
    return CheckedCode(len(found) - len(bad), len(bad))


def _has_same_content(folder: Path, known: WholeFile) -> bool:
    found = look_at(folder, known.path)
    return found is not None and (found.size_bytes, found.digest) == (known.size_bytes, known.digest)
