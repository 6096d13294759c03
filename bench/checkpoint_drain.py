"""From SIGTERM to the end of the process, with a real one: a session in training.

python -m bench.checkpoint_drain SIZE RUN_DIR     is that process.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRAINED = 85
DURABLE = "durable "
READY_LIMIT_S = 240.0
LEAVE_LIMIT_S = 120.0
WARM_STEPS = 3


@dataclass(frozen=True)
class Drain:
    """One SIGTERM.

    Attributes:
        whole_s: From the signal until the process was gone, everything durable.
        after_step_s: The same from the end of the step that was in progress.
        durable_s: From the end of that step until the checkpoint was durable and published.
    """

    whole_s: float
    after_step_s: float
    durable_s: float


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
            steps.append(float(line))  # when it ended: all processes of a machine have the same such clock
            if len(steps) > WARM_STEPS or time.monotonic() > deadline_s:
                break
        time.sleep(random.random() * (steps[-1] - steps[-2]))  # at no special moment of the step in progress
        began_s = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        durable_at_s: list[float] = []
        for line in process.stdout:
            if line.startswith(DURABLE):
                durable_at_s.append(float(line.removeprefix(DURABLE)))
            else:
                steps.append(float(line))
        process.wait(LEAVE_LIMIT_S)
        left_s = time.perf_counter()
        if process.returncode != DRAINED:
            raise RuntimeError(f"the training process left with {process.returncode}, not {DRAINED}")
        if len(durable_at_s) != 1:
            raise RuntimeError(f"{len(durable_at_s)} checkpoints were committed, not 1")
        step_ended_s = max(steps[-1], began_s)
        return Drain(left_s - began_s, left_s - step_ended_s, durable_at_s[0] - step_ended_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def train(size: str, run_dir: Path) -> None:
    """Train for ever, printing when each step ended, and when a checkpoint was durable."""
    import torch

    import trainerd
    from bench.checkpoint_states import make_training
    from trainerd.checkpoint.store import CheckpointStore

    own_commit = CheckpointStore.commit

    def commit(*args: Any, **kwargs: Any) -> Any:
        checkpoint = own_commit(*args, **kwargs)
        print(f"{DURABLE}{time.perf_counter()}", flush=True)
        return checkpoint

    CheckpointStore.commit = commit  # type: ignore[method-assign]
    training = make_training(size)
    batches = [(torch.zeros(1),)] * 1_000_000
    with trainerd.session(run_dir, every={"seconds": 1e6}) as session:
        session.track(**training.objects)
        for _epoch in session.epochs(1):
            for _batch in session.batches(batches):
                training.step()
                print(time.perf_counter(), flush=True)


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]))
