"""The judgement scored against the truth: real attempts, each with a cause injected, under a real
supervisor."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "support" / "scripts" / "endings.py"
CGROUP = Path("/sys/fs/cgroup/memory")
LIMIT_BYTES = 64 << 20

TRUTH = {
    "exit-0": "finished",
    "drained": "drained",
    "drained-without-proof": "crashed",
    "exit-7": "crashed",
    "exception": "crashed",
    "segmentation-fault": "crashed",
    "sigkill": "killed",
    "sigterm": "killed",
    "memory-error": "out-of-memory",
    "torch-allocator": "out-of-memory",
    "deadlock": "stalled",
    "shim-killed": "lost",
    "import-error": "rejected",
    "usage-error": "rejected",
    "exit-93": "rejected",
    "misfit": "rejected",
    "non-finite-loss": "non-finite-loss",
    "asked-to-stop": "stopped",
}
"""What was injected, and what that is called."""


def drop(bench, cause, *arguments):
    bench.drop(
        cause,
        "",
        command=[sys.executable, str(SCRIPT), cause, *arguments],
        restart={"budget": 1},
        resources={"cpus": 0},
        stall_timeout=2.0 if cause == "deadlock" else "never",
        on_nonfinite_loss="stop",
    )


def confusion(pairs):
    """Return a table: what it was, down; what it was called, across."""
    kinds = sorted({kind for pair in pairs for kind in pair})
    counts = Counter(pairs)
    head = " " * 16 + "".join(f"{kind:>17}" for kind in kinds)
    rows = [f"{truth:16}" + "".join(f"{counts[truth, kind] or '':>17}" for kind in kinds) for truth in kinds]
    return "\n".join([head, *rows])


def test_every_injected_cause_is_called_by_its_name(bench):
    """`pytest -s` shows the table."""
    bench.start()
    for cause in TRUTH:
        drop(bench, cause)
    bench.wait_running("asked-to-stop")
    bench.post("/v1/jobs/asked-to-stop/stop")
    pairs, wrong = [], []
    for cause, truth in TRUTH.items():
        bench.wait_state(cause, "finished", "parked", "rejected", "stopped")
        (ending,) = bench.outcomes(cause)
        pairs.append((truth, ending["kind"]))
        assert ending["evidence"]
        assert ending["next_action"]
        if ending["kind"] != truth:
            wrong.append((cause, truth, ending))
    print(confusion(pairs))
    assert not wrong, f"{wrong}\n{confusion(pairs)}"


@pytest.fixture
def small_cgroup():
    """A cgroup with little memory, where that can be made."""
    place = CGROUP / f"trainerd-test-{os.getpid()}"
    try:
        place.mkdir()
        (place / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    except OSError as error:
        with contextlib.suppress(OSError):
            place.rmdir()
        pytest.skip(f"no memory cgroup of version 1 can be made here: {error}")
    yield place
    place.rmdir()


@pytest.mark.root
def test_a_rank_that_the_kernel_kills_for_want_of_memory_is_told_from_one_that_somebody_kills(
    bench, small_cgroup
):
    """The kernel's log names it; without that a SIGKILL is a SIGKILL."""
    bench.start()
    drop(bench, "kernel-out-of-memory", str(small_cgroup))
    job = bench.wait_state("kernel-out-of-memory", "parked")
    assert job["last_outcome"]["kind"] == "out-of-memory", job["last_outcome"]
