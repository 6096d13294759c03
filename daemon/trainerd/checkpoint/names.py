"""The names of checkpoint folders, and the order that they stand for.

``step-000000120`` is the checkpoint at step 120. A second boundary at the same step, such as the end of an
epoch whose last batch was saved already, is ``step-000000120.1``.
"""

from __future__ import annotations

import re
from typing import Final

STAGING_PREFIX: Final = ".staging-"
REMOVING_PREFIX: Final = ".removing-"

_NAME: Final = re.compile(r"step-(\d{9,})(?:\.([1-9]\d*))?")


def checkpoint_name(step: int, ordinal: int = 0) -> str:
    """Return the name of the `ordinal`-th checkpoint at a step."""
    return f"step-{step:09d}.{ordinal}" if ordinal else f"step-{step:09d}"


def parse_name(name: str) -> tuple[int, int] | None:
    """Return (step, ordinal), None if that is not the name of a checkpoint."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2] or 0))
