"""How long the supervisor is silent while its program is replaced in place (SIGHUP).

    python -m bench.reload --rounds 20             # on a machine with nothing else to do
    python -m bench.reload --rounds 20 --busy 4    # beside four processes that compute without end

One asks for the state of a job again and again, each time on a new connection; for each reload the longest
wait for an answer counts, and what the supervisor was about when that question was asked. Exits with 1 if one
took as long as the command line waits for an answer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from statistics import median
from typing import Self

import httpx

from bench.supervisor_scale import Ground, ground
from trainerd.cli.client import ANSWER_TIMEOUT_S

SILENCE_TARGET_S = ANSWER_TIMEOUT_S
PAUSE_S = 0.02
"""Between two questions: who asks without a pause takes the processor that the new program needs."""
RELOAD_LIMIT_S = 60.0


class Asker:
    """Asks in a thread of its own; `waits` holds when each question was asked, and for how long."""

    def __init__(self, found: Ground, name: str) -> None:
        self.waits: list[tuple[float, float]] = []
        self._socket = str(found.root / "state" / "trainerd.sock")
        self._path = f"/v1/jobs/{name}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(PAUSE_S):
            asked_s = time.time()
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=self._socket, verify=False),
                base_url="http://trainerd",
                timeout=60,
            ) as client:
                client.get(self._path).raise_for_status()
            self.waits.append((asked_s, time.time() - asked_s))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Have so many processes compute without end."""
    processes = [multiprocessing.Process(target=_compute, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _compute() -> None:
    os.setsid()  # as a job has it: the kernel shares the processor among sessions
    while True:
        sum(range(10_000))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.reload", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--busy", type=int, default=0, help="so many processes compute meanwhile")
    options = parser.parse_args()
    silences = []
    with ground() as found:
        found.drop({"ant": {"command": ["sleep", "3600"], "grace": "1s"}})
        while found.states().get("running") != 1:
            time.sleep(0.1)
        with busy(options.busy):
            for number in range(options.rounds):
                silence_s, doing = one_reload(found)
                silences.append(silence_s)
                print(f"  reload {number + 1:3}: {silence_s * 1e3:6.0f} ms, asked {doing}", flush=True)
    longest_s = max(silences)
    print(f"{options.rounds} reloads beside {options.busy} busy processes, load {os.getloadavg()[0]:.1f}")
    print(f"longest silence of each: median {median(silences) * 1e3:.0f} ms, worst {longest_s * 1e3:.0f} ms")
    return 0 if longest_s < SILENCE_TARGET_S else 1


def one_reload(found: Ground) -> tuple[float, str]:
    """Reload; return the longest wait for an answer, and when in the reload its question was asked."""
    lives = len(_moments(found, "supervisor.ready"))
    with Asker(found, "ant") as asker:
        found.process.send_signal(signal.SIGHUP)
        deadline_s = time.monotonic() + RELOAD_LIMIT_S
        while len(_moments(found, "supervisor.ready")) == lives:
            if time.monotonic() > deadline_s:
                raise SystemExit("the new program did not become ready")
            time.sleep(0.05)
        time.sleep(0.3)
    silence_s, asked_s = max((wait_s, asked_s) for asked_s, wait_s in asker.waits)
    for event, phrase in (
        ("supervisor.ready", "when the new program was ready"),
        ("supervisor.started", "while the new program began"),
        ("supervisor.reloading", "between the two programs"),
    ):
        if asked_s >= _moments(found, event)[-1]:
            return silence_s, phrase
    left_s = _moments(found, "supervisor.reloading")[-1] - asked_s
    return silence_s, f"of the old program, {left_s * 1e3:.0f} ms before it left"


def _moments(found: Ground, event: str) -> list[float]:
    lines = (found.root / "state" / "logs" / "trainerd.jsonl").read_text().splitlines()
    seen = [json.loads(line) for line in lines if f'"{event}"' in line]
    return [datetime.fromisoformat(line["ts"]).timestamp() for line in seen]


if __name__ == "__main__":
    sys.exit(main())
