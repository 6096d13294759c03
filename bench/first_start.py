"""From a new spec to the first step of its job: `python -m bench.first_start --jobs 10`.

Jobs are submitted one after the other to one supervisor, each with a learning rate of its own: first without
standbys, then with them, when each begins in that of the job before. Printed are the medians of the time from
the spec to the end of the first step, whether the first losses of both series are equal, and the same script
started by hand. Targets have a line each, PASS or MISS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.standby import environment, running, standby_words, wait_for
from bench.targets import Target, print_verdicts
from trainerd.cli.client import Client
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import RanksRecord
from trainerd.errors import TrainerdError

JOB = Path(__file__).with_name("first_start_job.py")
WANTED_S = 1.0
"""A change is tried in a fraction of a second."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.first_start", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10, help="in each series")
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of every `finally`
    print(f"{platform.node()}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    took: dict[str, list[float]] = {}
    losses: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="first-start-", dir=args.scratch) as scratch:
        for standby in ("off", "auto"):
            series = Series(Path(scratch) / standby, standby)
            took[standby], losses[standby], warm = series.run(args.jobs)
            print(f"standby: {standby}: {shown(took[standby])}; {warm} of {args.jobs} began in a standby")
        print(f"by hand, without a supervisor: {shown([by_hand(Path(scratch), n) for n in range(3)])}")
    cold_s, warm_s = statistics.median(took["off"]), statistics.median(took["auto"][1:])
    print(f"ratio cold / warm: {cold_s / warm_s:.1f}")
    return print_verdicts(
        [
            Target("spec → first step, in a standby, s", warm_s, WANTED_S, "at most"),
            Target("equal first losses", sum(map(str.__eq__, *losses.values())), args.jobs, "at least"),
        ]
    )


def shown(values_s: list[float]) -> str:
    return f"median {statistics.median(values_s):.2f} s, {min(values_s):.2f} to {max(values_s):.2f}"


class Series:
    """Jobs of one supervisor."""

    def __init__(self, folder: Path, standby: str) -> None:
        self._folder, self._standby = folder, standby
        self._state = StatePaths(folder / "state")

    def run(self, jobs: int) -> tuple[list[float], list[str], int]:
        """Return how long each took, its first loss, and how many began in a standby."""
        (self._folder / "jobs").mkdir(parents=True)
        shutil.copy(JOB, self._folder / "train.py")  # beside it lie files with the names of modules
        folders = ("--jobs", str(self._folder / "jobs"), "--state", str(self._state.root))
        with running("run", *folders, output=self._folder / "output"):
            wait_for(lambda: self._state.socket.exists() or None, "the supervisor")
            found = [self._submit(number) for number in range(jobs)]
        return [each[0] for each in found], [each[1] for each in found], sum(each[2] for each in found)

    def _submit(self, number: int) -> tuple[float, str, bool]:
        name, lr = f"job-{number}", (number + 1) / 1000
        spec = {
            "name": name,
            "command": [sys.executable, "train.py", "--folder", str(self._folder), "--lr", str(lr)],
            "workdir": str(self._folder),
            "env": {each: environment()[each] for each in ("OMP_NUM_THREADS", "PYTHONPATH")},
            "standby": self._standby,
        }
        (self._folder / "end").unlink(missing_ok=True)
        new = self._folder / f"{name}.json"
        new.write_text(json.dumps(spec))
        began_s = time.time()
        new.rename(self._folder / "jobs" / new.name)
        noted = self._folder / f"{lr}.first-step"
        wait_for(lambda: (noted.exists() and noted.read_text()) or None, f"the first step of {name}")
        done_s, loss = noted.read_text().split()
        attempt = self._state.run(name).attempt(1)
        ranks = wait_for(lambda: records.read(attempt.ranks, RanksRecord), "its process")
        is_warm = b"warm_program" in Path(f"/proc/{ranks.processes[0].pid}/cmdline").read_bytes()
        if self._standby == "auto":
            wait_for(
                lambda: standby_words(self._state, name).startswith("ready") or None, f"the standby of {name}"
            )
        (self._folder / "end").touch()
        wait_for(lambda: job_state(self._state, name) == "finished" or None, f"the end of {name}")
        return float(done_s) - began_s, loss, is_warm


def job_state(state: StatePaths, name: str) -> str:
    """Return the state of a job; empty if the supervisor does not answer."""
    with contextlib.suppress(TrainerdError, OSError), Client(state) as client:
        return client.get_job(name).state
    return ""


def by_hand(folder: Path, number: int) -> float:
    """Run the script without a supervisor; return how long it takes to its first step, in seconds."""
    own = folder / f"hand-{number}"
    own.mkdir()
    (own / "end").touch()
    began_s = time.time()
    command = [sys.executable, str(folder / "off" / "train.py"), "--folder", str(own), "--lr", "0.001"]
    subprocess.run(
        command, check=True, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return float((own / "0.001.first-step").read_text().split()[0]) - began_s


if __name__ == "__main__":
    sys.exit(main())
