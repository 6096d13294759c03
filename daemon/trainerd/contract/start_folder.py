"""The folder in which this process was started, wherever it has gone since.

Hydra and some scripts change the working folder before they train. What is named relative to the folder that
the user was in is looked up from there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final


def working_folder() -> Path | None:
    """Return the folder in which this process is now, None if it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return None


_AT_IMPORT: Final = working_folder()
"""The working folder when trainerd was imported, which scripts do before they change it."""


def start_folder() -> Path:
    """Return the folder in which this process was started."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return folder_of(main if isinstance(main, str) else None, sys.argv[0] if sys.argv else "")


def folder_of(main: str | None, word: str) -> Path:
    """Return the folder in which a program was started.

    Args:
        main: File of the main module. Python makes it from that folder and the word on the command line.
        word: The program as the command line names it.
    """
    tail = os.sep + word
    if (
        main is not None
        and word
        and Path(main).is_absolute()
        and not Path(word).is_absolute()
        and main.endswith(tail)
    ):
        return Path(main.removesuffix(tail) or os.sep)
    return Path(_AT_IMPORT) if _AT_IMPORT is not None else Path.cwd()
