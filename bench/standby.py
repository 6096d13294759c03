"""From SIGKILL to the first new step: `python -m bench.standby --kills 20`.

A job with 140 MB of state is killed again and again, each time once its standby is ready, and a step or two
later. Printed are the phases between the kill and the first new step, the steps that are lost at a kill, and
whether every step of every attempt equals that of a run that nothing disturbed, bit for bit: its loss, and
after the first step of an attempt the whole state. Targets have a line each, PASS or MISS.

The job runs under `trainerd run`, or with `--exec` under `trainerd exec`. Without `--memory` each step is
saved on disk, and there is no copy in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
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
from typing import TYPE_CHECKING, Any

from bench.targets import Target, print_verdicts
from trainerd.checkpoint.memory_place import newest_in_memory
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli.client import Client
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import ExitRecord, RanksRecord
from trainerd.contract.resume_record import read_resume
from trainerd.errors import TrainerdError
from trainerd.training.schedule.memory_budget import COST_SHARE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[1]
JOB = Path(__file__).with_name("standby_job.py")
NAME = "standby"
LIMIT_S = 90.0
LOOK_S = 0.01
UNDISTURBED_LIMIT_S = 3600.0

PHASES = (
    "killed → reaped and cleaned up",
    "→ judged, backed off, launch recorded",
    "→ handed over",
    "→ script's first line",
    "→ imports",
    "→ model, optimizer, data",
    "→ restored, first batch",
    "→ first new step",
)


def main() -> int:
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of every `finally`
    print(f"{platform.node()}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="standby-", dir=args.scratch) as scratch:
        folder = Path(scratch)
        killed = Struck(folder, args).run()
        ledger = read_ledger(folder)
        firsts = sorted({row["step"] for row in ledger if "digest" in row})
        is_equal = equal_kills(ledger, undisturbed(folder / "alone", args, firsts, ledger))
    show(killed)
    took = [kill["total"] for kill in killed]
    lost = [kill["lost"] for kill in killed]
    source = "memory tier + standby" if args.memory else "from disk, standby only"
    what = f"SIGKILL → first new step, {args.state_mb:g} MB, {source}"
    targets = [
        Target(f"{what}, s", statistics.median(took), 0.30 if args.memory else 0.5, "at most"),
        Target("bit-equal kills", sum(is_equal), len(is_equal), "at least"),
    ]
    print(f"lost steps: median {statistics.median(lost):g}, most {max(lost)}")
    if args.memory:
        targets += lost_steps(ledger, lost)
    print(f"started warm: {sum(kill['is_warm'] for kill in killed)} of {len(killed)}")
    if args.json:
        print(json.dumps(killed))
    return print_verdicts(targets)


def lost_steps(ledger: list[dict[str, Any]], lost: list[int]) -> list[Target]:
    """Return the target for lost steps, if a copy is worth it at each step."""
    pairs = [(one, other) for one, other in itertools.pairwise(ledger) if one["pid"] == other["pid"]]
    step_s = statistics.median(other["done_s"] - one["done_s"] for one, other in pairs)
    copy_s = statistics.median(row["copy_s"] for row in ledger)
    share = copy_s / step_s
    print(f"a copy costs {copy_s * 1000:.1f} ms, {share:.1%} of a step of {step_s * 1000:.0f} ms")
    if share > COST_SHARE_MAX:
        print(f"lost steps have no target: a copy costs more than {COST_SHARE_MAX:.0%} of a step")
        return []
    return [Target("lost steps per kill", statistics.median(lost), 1, "at most")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.standby", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--standby", choices=("auto", "off"), default="auto")
    parser.add_argument("--exec", dest="through_exec", action="store_true")
    parser.add_argument("--state-mb", type=float, default=140.0)
    parser.add_argument("--step-ms", type=float, default=500.0, help="pause after each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


class Struck:
    """A job that is killed so many times."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self._folder, self._args = folder, args
        self._state = StatePaths(folder / "state")
        self._chance = random.Random(args.seed)
        self._words = ""  # how the standby was when it was asked for last

    def run(self) -> list[dict[str, Any]]:
        (self._folder / "jobs").mkdir()
        shutil.copy(JOB, self._folder / "train.py")  # beside it lie files with the names of modules
        spec = self._folder / "jobs" / f"{NAME}.json"
        spec.write_text(json.dumps(self._spec()))
        words = ["exec", str(spec)] if self._args.through_exec else ["run", "--jobs", str(spec.parent)]
        output = self._folder / "output"
        with running(*words, "--state", str(self._state.root), output=output):
            try:
                return [self._kill(attempt) for attempt in range(1, self._args.kills + 1)]
            except TimeoutError:
                print(output.read_text()[-3000:], file=sys.stderr)
                raise

    def _spec(self) -> dict[str, Any]:
        every: dict[str, Any] = {"steps": "never" if self._args.memory else 1, "seconds": "never"}
        return {
            "name": NAME,
            "command": [
                *(sys.executable, str(self._folder / "train.py")),
                *("--folder", str(self._folder)),
                *("--state-mb", str(self._args.state_mb), "--step-ms", str(self._args.step_ms)),
            ],
            "workdir": str(self._folder),  # what lies below it is the user's code
            "env": {name: environment()[name] for name in ("OMP_NUM_THREADS", "PYTHONPATH")},
            "standby": self._args.standby,
            "checkpoint": {"every": every, "memory": "auto" if self._args.memory else "off"},
            "restart": {"budget": 100_000, "backoff": {"initial": 0.01, "max": 0.01}},
        }

    def _kill(self, attempt: int) -> dict[str, Any]:
        run = self._state.run(NAME)
        pid = wait_for(lambda: rank(run, attempt), f"attempt {attempt}")
        wait_for(lambda: last_step(self._folder, pid) or None, f"a step of attempt {attempt}")
        newest = newest_in_memory if self._args.memory else newest_on_disk
        wait_for(lambda: newest(run.checkpoints), f"a checkpoint of attempt {attempt}")
        if self._args.standby == "auto":
            try:
                wait_for(self._is_ready, f"the standby beside attempt {attempt}")
            except TimeoutError as error:
                raise TimeoutError(f"{error}: {self._words}") from error
        time.sleep(self._chance.uniform(0, 3 * self._args.step_ms / 1000))
        killed_s = time.time()
        os.kill(pid, signal.SIGKILL)
        after = wait_for(lambda: rank(run, attempt + 1), f"attempt {attempt + 1}")
        first = wait_for(lambda: last_step(self._folder, after), f"a step of attempt {attempt + 1}")
        done = last_step(self._folder, pid)
        ended = records.read(run.attempt(attempt).exit, ExitRecord)
        resumed = wait_for(lambda: read_resume(run.resume), "resume.json")
        assert ended is not None
        paths = run.attempt(attempt + 1)
        moments = [
            *(killed_s, ended.ended_wall_s, paths.launch.stat().st_mtime, paths.ranks.stat().st_mtime),
            *(first["started_s"], first["imported_s"], first["built_s"], first["restored_s"]),
            first["done_s"],
        ]
        is_warm = b"warm_program" in Path(f"/proc/{after}/cmdline").read_bytes()
        return {
            "phases": [after_s - before_s for before_s, after_s in itertools.pairwise(moments)],
            "total": moments[-1] - killed_s,
            "lost": done["step"] - resumed.step,
            "source": resumed.source,
            "is_warm": is_warm,
        }

    def _is_ready(self) -> bool | None:
        self._words = standby_words(self._state, NAME) or self._words
        return self._words.startswith("ready") or None


@contextlib.contextmanager
def running(*words: str, output: Path) -> Iterator[None]:
    """Have a command of trainerd's run while the context lasts, and append what it prints to a file."""
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainerd", *words],
            stdout=file,
            stderr=file,
            env=environment(),
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()


def standby_words(state: StatePaths, name: str) -> str:
    """Return how the standby of a job is in words; empty if the supervisor does not answer."""
    with contextlib.suppress(TrainerdError, OSError), Client(state) as client:
        return client.get_job(name).standby or ""
    return ""


def environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{REPOSITORY / 'daemon'}{os.pathsep}{REPOSITORY}",
    }


def wait_for(look: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + LIMIT_S
    while (found := look()) is None:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} did not come within {LIMIT_S:g} s")
        time.sleep(LOOK_S)
    return found


def rank(run: Any, attempt: int) -> int | None:
    record = records.read(run.attempt(attempt).ranks, RanksRecord)
    return record.processes[0].pid if record is not None else None


def newest_on_disk(folder: Path) -> int | None:
    present = CheckpointStore(folder).checkpoints()
    return present[-1].step if present else None


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    path = folder / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_step(folder: Path, pid: int) -> dict[str, Any] | None:
    """Return the newest row of a process, with the moments of its first one."""
    rows = [row for row in read_ledger(folder) if row["pid"] == pid]
    return rows[0] | {"step": rows[-1]["step"]} if rows else None


def undisturbed(
    folder: Path, args: argparse.Namespace, digest_steps: list[int], ledger: list[dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Run as many steps as the ledger has, with nothing in the way; return them by number."""
    folder.mkdir()
    last = max(row["step"] for row in ledger)
    subprocess.run(
        [
            *(sys.executable, str(folder.parent / "train.py"), "--folder", str(folder)),
            *("--step-ms", "0"),
            *("--state-mb", str(args.state_mb), "--until", str(last)),
            *("--digest-steps", *map(str, digest_steps)),
        ],
        check=True,
        cwd=REPOSITORY,
        env=environment() | {"TRAINERD_CHECKPOINT_EVERY_SECONDS": "never", "TRAINERD_CHECK": "off"},
        stdout=subprocess.DEVNULL,
        timeout=UNDISTURBED_LIMIT_S,
    )
    return {row["step"]: row for row in read_ledger(folder)}


def equal_kills(ledger: list[dict[str, Any]], alone: dict[int, dict[str, Any]]) -> list[bool]:
    """Return for each attempt after the first whether all its steps equal those of the undisturbed run."""
    attempts: dict[int, list[dict[str, Any]]] = {}
    for row in ledger:
        attempts.setdefault(row["pid"], []).append(row)
    return [all(is_equal(row, alone[row["step"]]) for row in rows) for rows in list(attempts.values())[1:]]


def is_equal(row: dict[str, Any], alone: dict[str, Any]) -> bool:
    return row["loss"] == alone["loss"] and row.get("digest", alone.get("digest")) == alone.get("digest")


def show(killed: list[dict[str, Any]]) -> None:
    print("| phase, ms | median | quartiles |\n|---|---|---|")
    totals = [kill["total"] for kill in killed]
    columns = [[kill["phases"][index] for kill in killed] for index in range(len(PHASES))]
    for name, values in [*zip(PHASES, columns, strict=True), ("whole", totals)]:
        low, middle, high = quartiles([value * 1000 for value in values])
        print(f"| {name} | {middle:.0f} | {low:.0f}-{high:.0f} |")


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


if __name__ == "__main__":
    sys.exit(main())
