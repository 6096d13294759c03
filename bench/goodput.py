"""Goodput: how much of the time is training while machines die: `python -m bench.goodput --mtbf 10`.

The same model is trained under trainerd, with and without its standby and its copies in memory, under
Lightning with `torchrun --max-restarts`, under Ignite and the Transformers Trainer with a restart loop, and
by a hand-written torch.save loop with a restart loop. Each in turn is struck by SIGKILL at the same moments
of its own time, drawn from one seed with a given mean, at least `--kills` times; what has been killed is
started again at once. Counted are the useful steps per second against the plain loop that nothing disturbs,
the steps that were run more than once, and whether the final weights equal those of the contender's own
undisturbed run. For trainerd a line says where the rest of its time went.

Targets have a line each, PASS or MISS; it exits with 1 if one is missed. A peer that is not installed is left
out, with a line.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.targets import Target, print_verdicts
from chaos.supervised import Supervised
from chaos.waiting import Interruption
from trainerd.contract.counted import counted
from trainerd.contract.process import identify

REPOSITORY = Path(__file__).parents[1]
BEST = "trainerd + memory + standby"
OURS = {
    BEST: {"standby": "auto", "memory": "auto"},
    "trainerd + standby": {"standby": "auto", "memory": "off"},
    "trainerd": {"standby": "off", "memory": "off"},
}
PEERS = ("torch.save", "ignite", "lightning", "transformers")
NEEDS = {"lightning": "lightning", "ignite": "ignite", "transformers": "transformers"}
GOALS = {10: 0.88, 30: 0.94, 60: 0.97}
"""Least share of the undisturbed loop, by the mean time between kills in seconds."""
LOOK_S = 0.02
START_LIMIT_S = 120.0
SLOWEST = 4.0
"""What takes so many times as long as the undisturbed loop is given up."""


def main():
    args = parse_arguments()
    args.epochs = args.epochs or epochs_for(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of every `finally`
    rows = []
    with tempfile.TemporaryDirectory(prefix="goodput-", dir=args.scratch) as scratch:
        print(
            f"{platform.node()}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch "
            f"{torch_version()}"
        )
        short = argparse.Namespace(**vars(args) | {"epochs": min(args.plain_epochs, args.epochs)})
        plain = measure("plain", Path(scratch) / "plain", short, kills=False)
        whole = extrapolated(plain, args.epochs * args.batches)
        plain_step_s = step_s_of(plain["moments"])
        rows.append(["plain loop, undisturbed", whole, 1.0, 0, 0, "-"])
        print_row(rows[-1])
        shares = {}
        for name in args.contenders or (*OURS, *PEERS):
            if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
                print(f"left out: {name} is not installed (pip install 'trainerd[bench]')")
                continue
            alone = measure(name, Path(scratch) / f"{name}-undisturbed", args, kills=False, step_ms=0.0)
            struck = measure(name, Path(scratch) / f"{name}-struck", args, kills=True)
            is_equal = alone["digest"] == struck["digest"]
            share = struck["steps_per_s"] / whole
            shares[name] = share if is_equal or name not in OURS else 0.0  # fast and wrong is no share
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
            if name in OURS:
                print(where_time_went(struck, plain_step_s), flush=True)
    if args.json:
        print(json.dumps(rows))
    return print_verdicts(targets(args, shares))


def targets(args, shares):
    """Return the targets that these contenders have."""
    ours = shares.get(BEST)
    if ours is None:
        return []
    at = f"goodput at MTBF {args.mtbf:g} s, {BEST}"
    goal = [Target(at, ours, GOALS[args.mtbf], "at least")] if args.mtbf in GOALS else []
    return goal + [
        Target(f"{at}, ahead of {peer}", ours, share, "more than")
        for peer, share in shares.items()
        if peer in PEERS
    ]


def extrapolated(plain, steps):
    """Return the steps per second of an undisturbed loop of so many steps, from those of a shorter one."""
    moments, step_s = plain["moments"], step_s_of(plain["moments"])
    start_s = len(moments) / plain["steps_per_s"] - step_s * len(moments)
    return steps / (start_s + step_s * steps)


def step_s_of(moments):
    """Return the mean time of a step, in seconds, from the ends of the steps of an undisturbed loop."""
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def where_time_went(struck, plain_step_s):
    """Return a line on what a run that was killed needed beyond the useful steps of an undisturbed loop.

    Args:
        struck: What `measure` returned of it.
        plain_step_s: Mean time of an undisturbed step, in seconds.
    """
    moments, killed = struck["moments"], struck["killed"]
    returns, between = [], []
    for former, later in itertools.pairwise(moments):
        is_return = any(former < at_s <= later for at_s in killed)
        (returns if is_return else between).append(later - former)
    step_s = statistics.mean(between)
    return_s = statistics.median(returns) - step_s if returns else 0.0
    useful = struck["steps_per_s"] * struck["took_s"]
    returned_s = sum(returns) - step_s * len(returns)
    lines = {
        f"{counted(len(returns), 'return')} of {return_s:.2f} s (median)": returned_s,
        f"{counted(struck['again'], 'step')} run again": struck["again"] * step_s,
        f"steps of {step_s * 1000:.1f} ms, not {plain_step_s * 1000:.1f}": useful * (step_s - plain_step_s),
        "start": moments[0] - struck["began_s"],
        "end": struck["began_s"] + struck["took_s"] - moments[-1],
    }
    words = ", ".join(f"{what}: {seconds:.1f} s" for what, seconds in lines.items())
    return f"  of {struck['took_s']:.1f} s, {useful * plain_step_s:.1f} useful; {words}"


def epochs_for(args):
    """Return how many epochs there must be for the last of so many kills to come before the end.

    A quarter more: one that comes between two attempts finds nothing to kill.
    """
    last_s = next(itertools.islice(kill_times(args), args.kills + args.kills // 4 - 1, None))
    return math.ceil((last_s + 1.0) / (args.batches * args.step_ms / 1000))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mtbf", type=float, default=20.0, help="mean time between kills, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10, help="how many each contender gets, at least")
    parser.add_argument("--epochs", type=int, help="in place of as many as these kills need")
    parser.add_argument(
        "--plain-epochs", type=int, default=5, help="of the undisturbed loop; the rest is extrapolated"
    )
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--step-ms", type=float, default=40.0)
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--contenders", nargs="*", choices=(*OURS, *PEERS))
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def print_row(row):
    name, rate, share, kills, again, equal = row
    print(f"| {name:27} | {rate:6.2f} | {share:5.2f} | {kills:3} | {again:5} | {equal:3} |", flush=True)


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
        *(
            "bench.goodput_contenders",
            "trainerd" if name in OURS else name,
            "--folder",
            str(folder),
            "--epochs",
            str(args.epochs),
        ),
        *("--batches", str(args.batches), "--every", str(args.every)),
        *("--step-ms", str(args.step_ms if step_ms is None else step_ms)),
    ]
    if name in OURS:
        keeper = Trainerd(folder, command, OURS[name])
    else:
        keeper = KEEPERS.get(name, RestartLoop)(folder, command)
    limit_s = START_LIMIT_S + SLOWEST * args.epochs * args.batches * args.step_ms / 1000
    began_s, killed = time.monotonic(), []
    due = kill_times(args) if kills else itertools.repeat(float("inf"))
    next_s = next(due)
    try:
        while not (folder / "result.json").exists():
            now_s = time.monotonic() - began_s
            if now_s > limit_s:
                print(f"{name} has not finished within {limit_s:.0f} s")
                break
            keeper.tend()
            if now_s >= next_s:
                if kill(folder):
                    killed.append(time.monotonic())
                next_s = next(due)
            time.sleep(LOOK_S)
        took_s = time.monotonic() - began_s
    finally:
        keeper.close()
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    result = folder / "result.json"
    return {
        "steps_per_s": len(set(steps)) / took_s,
        "kills": len(killed),
        "killed": killed,
        "began_s": began_s,
        "took_s": took_s,
        "moments": [row["at_s"] for row in rows],
        "again": len(steps) - len(set(steps)),
        "digest": json.loads(result.read_text())["digest"] if result.exists() else None,
    }


def kill(folder):
    """SIGKILL the training process, if there is one at this moment; return whether there was."""
    try:
        pid, start_ticks = map(int, (folder / "pid").read_text().split())
        identity = identify(pid)
        if identity is None or identity.start_ticks != start_ticks:
            return False
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return False
    return True


def environment():
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'daemon'}",
    }


class RestartLoop:
    """Starts the script again whenever it has ended: `until python train.py; do :; done`."""

    def __init__(self, folder, command):
        self.folder = folder
        self.command = self.starting(command)
        self.output = (folder / "output.txt").open("ab")
        self.process = None
        self.tend()

    def starting(self, command):
        return [sys.executable, "-m", *command]

    def tend(self):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=environment(), stdout=self.output, stderr=self.output
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

    def __init__(self, folder, command, settings):
        self.supervised = Supervised(folder, Interruption())
        self.supervised.jobs.mkdir()
        self.supervised.start(limit_s=120)
        spec = {
            "command": [sys.executable, "-m", *command],
            "workdir": str(folder),
            "standby": settings["standby"],
            "env": {"OMP_NUM_THREADS": "1", "PYTHONPATH": environment()["PYTHONPATH"]},
            "checkpoint": {
                "every": {"steps": int(command[command.index("--every") + 1]), "seconds": "never"},
                "memory": settings["memory"],
            },
            "restart": {"budget": 1000, "backoff": {"initial": LOOK_S, "max": LOOK_S}},
        }
        draft = folder / "draft"
        draft.touch(mode=0o644)
        draft.write_text(json.dumps(spec))
        shutil.move(draft, self.supervised.jobs / "goodput.json")

    def tend(self):
        pass

    def close(self):
        self.supervised.drain()


KEEPERS = {"lightning": Torchrun}

if __name__ == "__main__":
    sys.exit(main())
