"""What a checkpoint costs, trainerd's beside others', and beside what the machine allows.

    python -m bench.checkpoint --size 140MB --rounds 9
    python -m bench.checkpoint --size all --json > result.json

In every round every way to save has its turn, in an order that alternates, and so have the plain copy, the plain
write and the plain read of the same bytes: whatever else the machine does in that moment, all have it. What is
printed are medians over the rounds, with quartiles, and ratios to trainerd.

    stall       what the call that saves takes
    true cost   five steps with a save at the first boundary, less five steps without one
    durable     from the call until the checkpoint would survive a power cut
    load        from a cold cache back into memory; trainerd's with all digests checked
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.checkpoint_drain import drain_once
from bench.checkpoint_limits import Limits
from bench.checkpoint_report import Target, judge, print_report
from bench.checkpoint_savers import Saver, available_savers, forget_cached
from bench.checkpoint_states import WIDTHS, Training, make_training
from trainerd.checkpoint.host_memory import fault_in, host_memory

WINDOW_STEPS = 5
ROUNDS = {"140MB": 9, "500MB": 7, "2GB": 5}
DRAINS = {"140MB": 3, "500MB": 3, "2GB": 3}

Samples = dict[str, list[float]]
"""Seconds by what was measured, such as ``trainerd stall``."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.checkpoint", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--size", choices=[*WIDTHS, "all"], default="140MB")
    parser.add_argument("--rounds", type=int, help="how often each is measured; by the size if not given")
    parser.add_argument("--only", action="append", help="measure only ways to save whose name has this in it")
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
    training = make_training(size)
    for _ in range(3):
        training.step()
    warnings.simplefilter("ignore")  # DCP's, that it runs without a cluster
    mend_torchvision()
    found, skipped = available_savers()
    found = [saver for saver in found if not only or any(text in saver.name for text in only)]
    for line in skipped:
        say(line)
    state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in training.tensors().values())
    limits = Limits(state_bytes, folder / "limits")
    savers = [saver(training, folder / str(index)) for index, saver in enumerate(found)]
    try:
        warm_up(savers, limits, training)
        for number in range(rounds):
            for saver in savers if number % 2 == 0 else reversed(savers):
                say(f"{size}: round {number + 1} of {rounds}: {saver.name}", is_passing=True)
                measure_saver(saver, training, limits, samples, saves_first=number % 4 < 2)
                training.step()  # so that the copy finds the caches and the cores as a save does
                measure_limits(limits, samples)
            say(f"{size}: round {number + 1} of {rounds}", is_passing=True)
    finally:
        for saver in savers:
            saver.close()
    del savers, training
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


def mend_torchvision() -> None:
    """Lightning imports torchvision where there is one, and dies of one that was built for another torch."""
    path = Path(__file__).parents[1] / "jobs" / "examples" / "mnist"
    sys.path.append(str(path))
    with contextlib.suppress(ImportError):
        importlib.import_module("torchvision_compat").import_torchvision()


def warm_up(savers: list[Saver], limits: Limits, training: Training) -> None:
    """Everything once: the first time pays for imports and for fresh memory."""
    limits.copy()
    limits.write()
    for saver in savers:
        saver.stall()
        saver.settle()
        saver.load()
    training.step()


def measure_saver(
    saver: Saver, training: Training, limits: Limits, samples: Samples, *, saves_first: bool
) -> None:
    """One pair of windows, and a load."""
    windows: dict[bool, float] = {}
    for saves in (saves_first, not saves_first):
        training.step()
        began_s = time.perf_counter()
        training.step()
        if saves:
            call_s = time.perf_counter()
            saver.stall()
            samples[f"{saver.name} stall"].append(time.perf_counter() - call_s)
        for _ in range(WINDOW_STEPS - 1):
            training.step()
        windows[saves] = time.perf_counter() - began_s
        if saves:
            saver.settle()
    samples[f"{saver.name} true cost"].append(windows[True] - windows[False])
    samples["step"].append(windows[False] / WINDOW_STEPS)
    measure_durable(saver, samples)
    forget_cached(saver.files())
    touch_memory(2 * limits.size)
    began_s = time.perf_counter()
    content = saver.load()
    samples[f"{saver.name} load"].append(time.perf_counter() - began_s)
    del content


def touch_memory(size: int) -> None:
    """Have the system own so much free memory that was in use a moment ago.

    A virtual machine gets memory from its host at the first touch, at 4 ms and more a megabyte; whoever came first
    to a fresh part of it would pay for the others.
    """
    fault_in(host_memory(size))


def measure_durable(saver: Saver, samples: Samples) -> None:
    """One more save, with nothing beside it: how fast it can be."""
    began_s = time.perf_counter()
    saver.stall()
    samples[f"{saver.name} durable"].append(saver.settle() - began_s)


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
