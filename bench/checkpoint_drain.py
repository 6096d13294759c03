"""From SIGTERM to the end of the process, with a real one: a session in training.

python -m bench.checkpoint_drain SIZE RUN_DIR     is that process.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

DRAINED = 85
READY_LIMIT_S = 240.0
LEAVE_LIMIT_S = 120.0
WARM_STEPS = 3


@dataclass(frozen=True)
class Drain:
    """One SIGTERM.

    Attributes:
        taken_s: Until the process was gone, everything durable.
        step_s: A step of its, the longest of the last few.
    """

    taken_s: float
    step_s: float


def drain_once(size: str, run_dir: Path) -> Drain:
    """Start a process that trains, ask it to stop at some moment of a step, and wait for its end.

    Raises:
        RuntimeError: It did not leave with a checkpoint.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINERD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.checkpoint_drain", size, str(run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        steps: list[float] = []
        deadline_s = time.monotonic() + READY_LIMIT_S
        for line in process.stdout:
            steps.append(float(line))
            if len(steps) > WARM_STEPS or time.monotonic() > deadline_s:
                break
        # At no special moment of the step in progress: this wait is part of what is measured.
        time.sleep(random.random() * steps[-1])
        began_s = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(LEAVE_LIMIT_S)
        taken_s = time.perf_counter() - began_s
        if process.returncode != DRAINED:
            raise RuntimeError(f"the training process left with {process.returncode}, not {DRAINED}")
        return Drain(taken_s, statistics.median(steps[-WARM_STEPS:]))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def train(size: str, run_dir: Path) -> None:
    """Train for ever, printing how long each step took."""
    import torch

    import trainerd
    from bench.checkpoint_states import make_training

    training = make_training(size)
    batches = [(torch.zeros(1),)] * 1_000_000
    with trainerd.session(run_dir, every={"seconds": 1e6}) as session:
        session.track(**training.objects)
        for _epoch in session.epochs(1):
            began_s = time.perf_counter()
            for _batch in session.batches(batches):
                training.step()
                now_s = time.perf_counter()
                print(now_s - began_s, flush=True)
                began_s = now_s


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]))
