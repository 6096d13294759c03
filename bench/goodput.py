"""Goodput: how much of the time is training while machines die: `python -m bench.goodput`.

The same model is trained under trainerd, under Lightning with `torchrun --max-restarts`, under Ignite with a
restart loop, and by a hand-written torch.save loop with a restart loop. Each in turn is struck by SIGKILL at
the same moments of its own time, drawn from one seed with a given mean; what has been killed is started again
at once. Counted are the useful steps per second against the plain loop that nobody disturbs, the steps that
were run more than once, and whether the final weights equal those of the contender's own undisturbed run.

A peer that is not installed is left out, aloud.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from chaos.supervised import Supervised
from chaos.waiting import Interruption

REPOSITORY = Path(__file__).parents[1]
CONTENDERS = ("trainerd", "lightning", "ignite", "torch.save")
NEEDS = {"lightning": "lightning", "ignite": "ignite"}
LOOK_S = 0.02
LIMIT_S = 300.0


def main():
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of every `finally`
    rows = []
    with tempfile.TemporaryDirectory(prefix="goodput-", dir=args.scratch) as scratch:
        print(
            f"{platform.node()}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch "
            f"{torch_version()}"
        )
        plain = measure("plain", Path(scratch) / "plain", args, kills=False)
        rows.append(["plain loop, undisturbed", plain["steps_per_s"], 1.0, 0, 0, "-"])
        print_row(rows[-1])
        for name in args.contenders or CONTENDERS:
            if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
                print(f"left out: {name} is not installed (pip install 'trainerd[bench]')")
                continue
            alone = measure(name, Path(scratch) / f"{name}-undisturbed", args, kills=False, step_ms=0.0)
            struck = measure(name, Path(scratch) / f"{name}-struck", args, kills=True)
            is_equal = alone["digest"] == struck["digest"]
            share = struck["steps_per_s"] / plain["steps_per_s"]
            row = [
                name,
                struck["steps_per_s"],
                share,
                struck["kills"],
                struck["again"],
                "yes" if is_equal else "no",
            ]
            rows.append(row)
            print_row(row)
    if args.json:
        print(json.dumps(rows))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mtbf", type=float, default=20.0, help="mean time between kills, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--step-ms", type=float, default=40.0)
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def print_row(row):
    name, rate, share, kills, again, equal = row
    print(f"| {name:24} | {rate:6.2f} | {share:5.2f} | {kills:3} | {again:5} | {equal:3} |", flush=True)


def torch_version():
    return importlib.metadata.version("torch")


def kill_times(args):
    """Yield the moments of the kills, in seconds from the start of a contender."""
    chance, at_s = random.Random(args.seed), 0.0
    while True:
        at_s += chance.expovariate(1 / args.mtbf)
        yield at_s


def measure(name, folder, args, *, kills, step_ms=None):
    """Train to the end; return rate, kills, steps run again, digest of the weights."""
    folder.mkdir()
    command = [
        *("bench.goodput_contenders", name, "--folder", str(folder), "--epochs", str(args.epochs)),
        *("--batches", str(args.batches), "--every", str(args.every)),
        *("--step-ms", str(args.step_ms if step_ms is None else step_ms)),
    ]
    keeper = KEEPERS.get(name, RestartLoop)(folder, command)
    began_s, struck = time.monotonic(), 0
    due = kill_times(args) if kills else itertools.repeat(float("inf"))
    next_s = next(due)
    try:
        while not (folder / "result.json").exists():
            now_s = time.monotonic() - began_s
            if now_s > LIMIT_S:
                print(f"{name} has not finished within {LIMIT_S:.0f} s")
                break
            keeper.tend()
            if now_s >= next_s:
                struck += kill(folder)
                next_s = next(due)
            time.sleep(LOOK_S)
        took_s = time.monotonic() - began_s
    finally:
        keeper.close()
    steps = [json.loads(line)["step"] for line in (folder / "ledger.jsonl").read_text().splitlines()]
    result = folder / "result.json"
    return {
        "steps_per_s": len(set(steps)) / took_s,
        "kills": struck,
        "again": len(steps) - len(set(steps)),
        "digest": json.loads(result.read_text())["digest"] if result.exists() else None,
    }


def kill(folder):
    """SIGKILL the training process, if there is one at this moment; return how many were killed."""
    try:
        process = psutil.Process(int((folder / "pid").read_text()))
        if str(folder) not in process.cmdline():
            return 0
        process.send_signal(signal.SIGKILL)
    except (OSError, ValueError, psutil.Error):
        return 0
    return 1


def environment():
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'daemon'}",
    }


class RestartLoop:
    """Starts the script again whenever it has ended: `until python train.py; do :; done`."""

    def __init__(self, folder, command):
        self.command = self.starting(command)
        self.output = (folder / "output.txt").open("ab")
        self.process = None
        self.tend()

    def starting(self, command):
        return [sys.executable, "-m", *command]

    def tend(self):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                self.command, cwd=REPOSITORY, env=environment(), stdout=self.output, stderr=self.output
            )

    def close(self):
        self.process.terminate()  # torchrun ends its workers then
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()


class Torchrun(RestartLoop):
    """torchrun with restarts without end, as Lightning's documentation has it."""

    def starting(self, command):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
        return [*launcher, "--max-restarts=1000", "-m", *command]


class Trainerd:
    """The supervisor, with the one job."""

    def __init__(self, folder, command):
        self.supervised = Supervised(folder, Interruption())
        self.supervised.jobs.mkdir()
        self.supervised.start(limit_s=120)
        spec = {
            "command": [sys.executable, "-m", *command],
            "workdir": str(REPOSITORY),
            "env": {"OMP_NUM_THREADS": "1", "PYTHONPATH": environment()["PYTHONPATH"]},
            "checkpoint": {
                "every": {"steps": int(command[command.index("--every") + 1]), "seconds": "never"}
            },
            "restart": {"budget": 1000, "backoff": {"initial": 0.1, "max": 1}},
        }
        draft = folder / "draft"
        draft.touch(mode=0o644)
        draft.write_text(json.dumps(spec))
        shutil.move(draft, self.supervised.jobs / "goodput.json")

    def tend(self):
        pass

    def close(self):
        self.supervised.drain()


KEEPERS = {"trainerd": Trainerd, "lightning": Torchrun}

if __name__ == "__main__":
    main()
