"""Whether a person types the program in piece by piece: a notebook, IPython or a prompt."""

from __future__ import annotations

import contextlib
import sys


def is_interactive() -> bool:
    """Tell whether Ctrl-C or the stop button is to end the cell, and not the process."""
    if hasattr(sys, "ps1"):
        return True
    ipython = sys.modules.get("IPython")
    with contextlib.suppress(Exception):  # half imported, or something else of that name
        return ipython is not None and ipython.get_ipython() is not None
    return False
