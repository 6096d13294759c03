"""The tiny example at a pace that a test sets while it runs: the file that PACE names holds seconds a
step."""

from __future__ import annotations

import os
import runpy
import time
from pathlib import Path

TINY = Path(__file__).resolve().parents[3] / "jobs" / "examples" / "tiny" / "train.py"

_sleep = time.sleep


def wait_for_pace(_asked_s: float) -> None:
    """Take as long as the file says, in slices: a new pace counts at once, and a signal ends nothing
    early."""
    began_s = time.monotonic()
    while (left_s := began_s + float(Path(os.environ["PACE"]).read_text()) - time.monotonic()) > 0:
        _sleep(min(0.05, left_s))


time.sleep = wait_for_pace
runpy.run_path(str(TINY), run_name="__main__")
