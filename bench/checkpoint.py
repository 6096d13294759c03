"""What a checkpoint costs, trainerd's beside others', and beside what the machine allows.

    python -m bench.checkpoint --size 140MB
    python -m bench.checkpoint --size all --json > result.json

Every way to save has a process of its own, which trains, so that none suffers from what another leaves
behind. They take turns, in an order that alternates, and so have the plain copy, the plain write and the
plain read of the same bytes: whatever else the machine does in that moment, all have it. What is printed are
medians over the rounds, with quartiles, and ratios to trainerd.

    stall       what the call that saves takes
    true cost   five steps with a save at the first boundary, less five steps without one
    durable     from the call until the checkpoint would survive a power cut
    load        from a cold cache back into memory; trainerd's with all digests checked
    step        a step of its process when nothing is saved: what a way to save leaves behind is seen here
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.checkpoint_drain import drain_once
from bench.checkpoint_limits import Limits
from bench.checkpoint_process import Samples, SaverProcess
from bench.checkpoint_report import OURS, Target, judge, print_report
from bench.checkpoint_savers import available_savers
from bench.checkpoint_states import WIDTHS, make_training

ROUNDS = {"140MB": 4, "500MB": 4, "2GB": 3}
DRAINS = {"140MB": 3, "500MB": 3, "2GB": 3}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.checkpoint", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--size", choices=[*WIDTHS, "all"], default="140MB")
    parser.add_argument("--rounds", type=int, help="how often each is measured; by the size if not given")
    parser.add_argument(
        "--only", action="append", help="measure only trainerd and ways to save whose name has this in it"
    )
    parser.add_argument("--folder", type=Path, help="where to write: the disk that is measured")
    parser.add_argument("--json", action="store_true", help="print all samples as JSON instead of tables")
    arguments = parser.parse_args()
    results = []
    for size in WIDTHS if arguments.size == "all" else [arguments.size]:
        with tempfile.TemporaryDirectory(prefix="trainerd-bench-", dir=arguments.folder) as folder:
            results.append(measure(size, Path(folder), rounds=arguments.rounds, only=arguments.only))
        if not arguments.json:
            print_report(results[-1])
    if arguments.json:
        print(json.dumps(results, indent=1))
    return 0 if all(target["is_met"] for result in results for target in result["targets"]) else 1


def measure(size: str, folder: Path, *, rounds: int | None, only: list[str] | None) -> dict[str, Any]:
    """Measure one size; return samples, medians and how they stand to the targets."""
    rounds = rounds or ROUNDS[size]
    began = datetime.now(UTC)
    samples: Samples = defaultdict(list)
    load_begin = os.getloadavg()
    pacemaker = make_training(next(iter(WIDTHS)))
    found, skipped = available_savers()
    for line in skipped:
        say(line)
    wanted = [OURS, *only] if only else [""]  # ours always: all ratios are to it
    names = [saver.name for saver in found if any(text in saver.name for text in wanted)]
    savers: list[SaverProcess] = []
    try:
        for index, name in enumerate(names):
            say(f"{size}: {name} gets warm", is_passing=True)
            savers.append(SaverProcess(name, size, folder / str(index)))
            state_bytes = savers[-1].wait_until_warm()
        limits = Limits(state_bytes, folder / "limits")
        limits.copy()
        limits.write()
        for number in range(rounds):
            for saver in savers if number % 2 == 0 else reversed(savers):
                say(f"{size}: round {number + 1} of {rounds}: {saver.name}", is_passing=True)
                for measured, seconds in saver.measure(saves_first=number % 4 < 2).items():
                    samples[measured] += seconds
                pacemaker.step()
                pacemaker.step()  # so that the copy finds the caches and the cores as a save does
                measure_limits(limits, samples)
            say(f"{size}: round {number + 1} of {rounds}", is_passing=True)
    finally:
        for saver in savers:
            saver.close()
    del pacemaker
    measure_drains(size, folder, limits, samples)
    targets = judge(size, samples)
    return {
        "size": size,
        "state_bytes": state_bytes,
        "began": f"{began:%Y-%m-%d %H:%M} UTC",
        "command": " ".join(["python", "-m", "bench.checkpoint", *sys.argv[1:]]),
        "rounds": rounds,
        "load_average": [round(load_begin[0], 1), round(os.getloadavg()[0], 1)],
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "skipped": skipped,
        "samples_s": samples,
        "targets": [target_record(target) for target in targets],
    }


def measure_limits(limits: Limits, samples: Samples) -> None:
    samples["memcpy"].append(limits.copy())
    samples["raw write"].append(limits.write())
    samples["raw read"].append(limits.read())


def measure_drains(size: str, folder: Path, limits: Limits, samples: Samples) -> None:
    for number in range(DRAINS[size]):
        say(f"{size}: SIGTERM {number + 1} of {DRAINS[size]}", is_passing=True)
        samples["drain write"].append(statistics.median(limits.write() for _ in range(3)))
        drain = drain_once(size, folder / f"run-{number}")
        samples["drain"].append(drain.after_step_s)
        samples["drain whole"].append(drain.whole_s)
        samples["drain durable"].append(drain.durable_s)
    say("", is_passing=True)


def target_record(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "value": target.value,
        "limit": target.limit,
        "is_met": target.is_met,
    }


def say(text: str, *, is_passing: bool = False) -> None:
    """Show what is being done; what passes is overwritten by the next."""
    if is_passing and not sys.stderr.isatty():
        return
    sys.stderr.write(f"\r\033[K{text}" if is_passing else f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
