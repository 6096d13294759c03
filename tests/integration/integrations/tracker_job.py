"""A job with the curve of a tracker, which strikes itself where a test says."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import trainerd


def strike(place: str) -> None:
    where, _, name = os.environ["JOB_STRIKE"].partition(":")
    if where == place:
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        time.sleep(0.05)


def main() -> None:
    out = Path(os.environ["JOB_OUT"])
    tracker = os.environ.get("JOB_TRACKER", "tensorboard")
    every = {"steps": 4, "epochs": None, "seconds": None}
    with trainerd.session(out / "run", every=every, strict=False, trackers=[tracker]) as session:
        total = session.value("total", 0.0)
        for epoch in session.epochs(3):
            for number in session.batches(range(7)):
                total.value += number / 7
                session.log(total=total.value, number=number)
                strike(f"{epoch}.{session.batch}")
            strike(f"epoch{epoch}")
            session.report(score=total.value)
        result = {"total": total.value}
    (out / "final.json").write_text(json.dumps(result))
