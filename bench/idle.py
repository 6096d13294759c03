"""What supervising costs: memory and CPU of the supervisor and a shim while one job trains.

    python -m bench.idle [--seconds 30]

Exits with 1 if the supervisor is at or over 80 MB (resident) or 1 % of a core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.demo.plans import EXAMPLES
from chaos.supervised import Supervised
from chaos.waiting import Interruption, StopRequestedError, wait_for

MEMORY_TARGET_BYTES = 80_000_000
CPU_TARGET_SHARE = 0.01
RUNNING_LIMIT_S = 60.0
SETTLE_S = 3.0

SPEC = f"""
name: tiny
command: [python, train.py, --epochs, "1000", --batches, "100", --step-ms, "100"]
workdir: {EXAMPLES / "tiny"}
checkpoint: {{every: {{steps: 50}}}}
"""


@dataclass(frozen=True)
class Usage:
    """What a process has used so far.

    Attributes:
        resident_bytes: RSS: pages in memory, those shared with others counted in full.
        proportional_bytes: PSS: shared pages divided among those who share them.
        cpu_s: Seconds of CPU time, user and system, of all threads that live.
    """

    resident_bytes: int
    proportional_bytes: int
    cpu_s: float


def measure(pid: int) -> Usage:
    """Read the usage of a process."""
    rollup = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    # In nanoseconds: `stat` counts in hundredths of a second, which is as much as there is to count.
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return Usage(
        resident_bytes=int(rollup["Rss"].split()[0]) * 1024,
        proportional_bytes=int(rollup["Pss"].split()[0]) * 1024,
        cpu_s=sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch")
    seconds = parser.parse_args().seconds
    interruption = Interruption()
    interruption.install()
    with tempfile.TemporaryDirectory(prefix="trainerd-idle-") as folder:
        root = Path(folder)
        (root / "jobs").mkdir()
        supervised = Supervised(root, interruption)
        try:
            return watch(supervised, seconds, interruption)
        except StopRequestedError:
            return 130
        finally:
            supervised.drain()


def watch(supervised: Supervised, seconds: float, interruption: Interruption) -> int:
    """Measure for so many seconds while the job trains; return the exit code."""
    pid = supervised.start()
    (supervised.jobs / "tiny.yaml").write_text(SPEC)
    job = wait_for(
        "the job to train", lambda: training(supervised), limit_s=RUNNING_LIMIT_S, interruption=interruption
    )
    pause(SETTLE_S, interruption)
    pids = {"supervisor": pid, "shim": job["shim_pid"]}
    before = {name: measure(pid) for name, pid in pids.items()}
    began_s = time.monotonic()
    pause(seconds, interruption)
    elapsed_s = time.monotonic() - began_s
    after = {name: measure(pid) for name, pid in pids.items()}
    print(f"one job training, watched for {elapsed_s:.0f} s\n")
    print(f"{'':<12}{'RSS':>10}{'PSS':>10}{'CPU':>12}")
    for name, usage in after.items():
        share = (usage.cpu_s - before[name].cpu_s) / elapsed_s
        print(
            f"{name:<12}{usage.resident_bytes / 1e6:>7.1f} MB{usage.proportional_bytes / 1e6:>7.1f} MB"
            f"{share:>10.3%}"
        )
    share = (after["supervisor"].cpu_s - before["supervisor"].cpu_s) / elapsed_s
    is_good = after["supervisor"].resident_bytes < MEMORY_TARGET_BYTES and share < CPU_TARGET_SHARE
    print(f"\ntarget for the supervisor: under 80 MB and 1 % of a core: {'met' if is_good else 'MISSED'}")
    return 0 if is_good else 1


def training(supervised: Supervised) -> dict[str, Any] | None:
    job = supervised.job("tiny")
    return job if job is not None and job["state"] == "running" and job["step"] else None


def pause(seconds: float, interruption: Interruption) -> None:
    """Let time pass: the measurement itself, not a wait for something to happen.

    Raises:
        StopRequestedError: Somebody asked this program to stop.
    """
    deadline_s = time.monotonic() + seconds
    wait_for(
        "time to pass",
        lambda: time.monotonic() >= deadline_s,
        limit_s=seconds + 1.0,
        interruption=interruption,
    )


if __name__ == "__main__":
    sys.exit(main())
