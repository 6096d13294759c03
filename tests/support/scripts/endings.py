"""A rank without torch that ends in the way it is told to: the causes against which the judgement is
scored."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import signal
import sys
import threading
from pathlib import Path

from trainerd.contract import records
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.records import OutcomeRecord

ATTEMPT = AttemptPaths(Path(os.environ["TRAINERD_ATTEMPT_DIR"]))
MEMORY_LIMIT_BYTES = 64 << 20


def beat(step: int = 0) -> None:
    page = HeartbeatWriter(ATTEMPT.heartbeat(0))
    page.beat(
        Phase.STEP,
        step=step,
        epoch=0,
        epochs=1,
        batch=step,
        batches=9,
        checkpoint_step=-1,
        loss=math.nan,
        saves=0,
        resumed_step=0,
    )


def say(kind: str, error_type: str | None = None) -> None:
    records.write(ATTEMPT.outcome(0), OutcomeRecord(kind, error_type=error_type, error_message="as injected"))


def end(how: str) -> None:
    match how:
        case "exit-0":
            sys.exit(0)
        case "exit-7":
            sys.exit(7)
        case "exit-93":
            sys.exit(93)
        case "drained":
            beat()
            say("drained")
            sys.exit(85)
        case "drained-without-proof":
            sys.exit(85)
        case "exception":
            beat()
            raise ValueError("as injected")
        case "segmentation-fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sigterm":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the shim holds it for what imports trainerd
            os.kill(os.getpid(), signal.SIGTERM)
        case "memory-error":
            bytearray(1 << 60)
        case "torch-allocator":
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate"
            )
        case "kernel-out-of-memory":
            (Path(sys.argv[2]) / "cgroup.procs").write_text(str(os.getpid()))
            hoard = [bytearray(os.urandom(1 << 20)) for _ in range(4 * MEMORY_LIMIT_BYTES >> 20)]
            raise AssertionError(f"{len(hoard)} MiB were there")
        case "deadlock" | "asked-to-stop":
            beat()
            threading.Event().wait()
        case "shim-killed":
            os.kill(os.getppid(), signal.SIGKILL)
            threading.Event().wait()
        case "import-error":
            importlib.import_module("no_such_module_at_all")
        case "usage-error":
            argparse.ArgumentParser().parse_args(["--no-such-option"])
        case "misfit":
            say("mismatch", "trainerd.errors.MismatchError")
            sys.exit(1)
        case "non-finite-loss":
            beat(3)
            say("nonfinite-loss", "trainerd.errors.NonFiniteLossError")
            sys.exit(1)


if __name__ == "__main__":
    end(sys.argv[1])
