"""The rule for the names of jobs: they become folder names, log fields and command-line words."""

from __future__ import annotations

import re
from typing import Final

from trainerd.errors import UserError

NAME_PATTERN: Final = r"[a-z0-9][a-z0-9._-]*"
NAME_LENGTH_MAX: Final = 100

ADOPTED_SUFFIX: Final = "_adopted"
"""What the name of a script that `trainerd adopt` has written ends in, before ``.py``."""

_NAME = re.compile(NAME_PATTERN)


def check_name(name: str) -> str:
    """Return `name` if it can name a job.

    Raises:
        UserError: It cannot; the message says which rule it breaks.
    """
    if "/" in name:
        raise UserError(
            f"{name!r} is not a job name: a name is never a path",
            hint="leave out the slash; the run folder is made from the name",
        )
    if len(name) > NAME_LENGTH_MAX:
        raise UserError(f"a job name has at most {NAME_LENGTH_MAX} characters, this one has {len(name)}")
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is not a job name",
            hint="use lower-case letters, digits, '.', '_' and '-', and begin with a letter or digit",
        )
    return name
