"""Drain two or more ranks at random times, again and again, and see that none hangs and none disagrees.

    python -m bench.rank_drains [--drains 200] [--seed 0] [--ddp] [--ranks 2]

Every attempt begins where the one before was drained; at the end the files and the history of the run are
compared with those of a run that nobody disturbed. It prints one line an attempt, and exits 1 at the first
difference.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.support.rank_runs import Attempt, run_ranks
from tests.support.training_runs import result_of
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths

STEPS_BETWEEN_MAX = 6
WHOLE_LIMIT_S = 600.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Drain ranks at random times.")
    parser.add_argument("--drains", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ddp", action="store_true")
    parser.add_argument("--ranks", type=int, choices=(2, 3, 4), default=2)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    # As many samples as leave room for every drain, which takes 7 steps on average: 4 a rank and step, in 2
    # epochs.
    size = ["--epochs", "2", "--samples", str(2 * args.ranks * args.drains * (STEPS_BETWEEN_MAX + 3) + 160)]
    size += ["--ddp"] if args.ddp else []
    with tempfile.TemporaryDirectory() as folder:
        run, whole = Path(folder) / "run", Path(folder) / "whole"
        for number in range(args.drains):
            if not drain(run, size, chance, number, world_size=args.ranks):
                return 1
        run_ranks(run, *size, world_size=args.ranks, limit_s=WHOLE_LIMIT_S)
        run_ranks(whole, *size, world_size=args.ranks, limit_s=WHOLE_LIMIT_S)
        is_equal = result_of(run) == result_of(whole)
    print(
        f"{args.drains} drains, no hang; the run is {'equal' if is_equal else 'NOT EQUAL'} to an "
        "undisturbed one"
    )
    return 0 if is_equal else 1


def drain(run: Path, size: list[str], chance: random.Random, number: int, *, world_size: int) -> bool:
    """Run one attempt and drain it; return whether all ranks left together with a checkpoint."""
    slow_ms = chance.choice([0, 15])
    with Attempt(run, *size, "--step-ms", 5, "--slow-rank-ms", slow_ms, world_size=world_size) as attempt:
        attempt.wait_for_step(
            chance.choice(range(world_size)), newest_step(run) + chance.randint(1, STEPS_BETWEEN_MAX)
        )
        began_s = time.monotonic()
        struck = chance.choice([*((rank,) for rank in range(world_size)), tuple(range(world_size))])
        for rank in struck:
            attempt.send(rank, chance.choice(SIGNALS))
        codes = attempt.wait()
    took_s = time.monotonic() - began_s
    print(
        f"drain {number}: ranks {struck}, left at step {newest_step(run)} after {took_s:.2f} s: {codes}",
        flush=True,
    )
    if codes != [DRAINED] * world_size:
        print(attempt.output)
        return False
    return True


def newest_step(run: Path) -> int:
    """Return the step of the newest checkpoint, 0 if there is none."""
    if not RunPaths(run).checkpoints.exists():
        return 0
    present = CheckpointStore.of_run(RunPaths(run)).checkpoints()
    return present[-1].step if present else 0


if __name__ == "__main__":
    sys.exit(main())
