"""A session that fails in the way it is told to: at one step for ever, only from one checkpoint, or by its
loss."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import torch

import trainerd

HOW = sys.argv[1]
STEPS, SOUND, SPOILT, FAILS_AFTER = 20, 5, 10, 13


def wait_for(path: Path) -> None:
    """Wait for the save in the background, so that each of them is made."""
    deadline_s = time.monotonic() + 30.0
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)


with trainerd.session(every={"steps": 5, "seconds": None, "epochs": None}, keep_last=None) as session:
    session.track(model=torch.nn.Linear(1, 1))
    began_at = (found := session.resume()) and found.step
    for _ in session.epochs(1):
        for _ in session.batches(range(STEPS)):
            is_there = session.step == FAILS_AFTER
            if session.step in {SOUND, SPOILT}:
                wait_for(session.run_dir / "checkpoints" / f"step-{session.step:09d}")
            if is_there and (
                HOW == "always" or (HOW == "spoilt" and began_at in {None, *range(SPOILT, STEPS)})
            ):
                raise ValueError("as injected")
            is_lost = HOW.startswith("nan") and is_there
            session.log(loss=math.nan if is_lost else 1.0)
