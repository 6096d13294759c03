"""Shifts the clock of a Python program by what a file says: imported by the interpreter as it starts.

All processes share the clock of the machine; this one is only that of processes that have the variable.
"""

# ruff: noqa: INP001 -- a folder for PYTHONPATH, no package

import os
import time

_PATH = os.environ.get("CHAOS_CLOCK", "")
if _PATH:
    _true_time = time.time

    def _shift_s() -> float:
        try:
            with open(_PATH, encoding="ascii") as file:  # noqa: PTH123 -- pathlib is slow to import
                return float(file.read() or 0)
        except (OSError, ValueError):
            return 0.0

    def _time() -> float:
        return _true_time() + _shift_s()

    def _time_ns() -> int:
        return int(_time() * 1e9)

    time.time, time.time_ns = _time, _time_ns
