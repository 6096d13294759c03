"""A rank without torch that beats as a session does, and then stands still in the way it is told to.

Usage: beating.py <gil|deadlock|sigstop|queue|peer|silent|slow> [beats].
By one beat it has made no step. With `slow` it finishes.
"""

from __future__ import annotations

import faulthandler
import math
import os
import queue
import re
import signal
import sys
import threading
import time
from pathlib import Path

from trainerd.contract import records
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.records import OutcomeRecord
from trainerd.contract.signals import STACKS

RANK = int(os.environ.get("RANK", "0"))


def stand_still(how: str) -> None:
    if how == "gil":
        re.match(r"(a+)+$", "a" * 60 + "b")
    elif how == "deadlock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif how == "sigstop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "queue":
        queue.Queue().get()
    elif how == "peer":
        # Rank 1 is stopped, and rank 0 waits for it as in a collective.
        if RANK == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        threading.Event().wait()


how, beats = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
if how == "silent":
    threading.Event().wait()
faulthandler.register(STACKS, file=2, all_threads=True, chain=False)
page = HeartbeatWriter(Path(os.environ["TRAINERD_ATTEMPT_DIR"]) / f"heartbeat-{RANK:05d}")
for step in range(beats):
    page.beat(
        Phase.STEP,
        step=step,
        epoch=0,
        epochs=1,
        batch=step,
        batches=beats,
        checkpoint_step=-1,
        loss=math.nan,
        saves=0,
        resumed_step=0,
    )
    time.sleep(0.9 if how == "slow" else 0.02)
if how == "slow":
    paths = AttemptPaths(Path(os.environ["TRAINERD_ATTEMPT_DIR"]))
    records.write(paths.outcome(RANK), OutcomeRecord("finished"))
stand_still(how)
