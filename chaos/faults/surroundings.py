"""Faults around a job, which it must not notice."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from chaos.faults.fault import Fault, Struck, register
from chaos.waiting import NotNowError

if TYPE_CHECKING:
    from chaos.faults.fault import Context

SECOND_SUPERVISOR_LIMIT_S: Final = 120.0
HALF_LIMIT_S: Final = 1.0


def _write_half_a_spec(context: Context) -> Struck:
    """Write another spec by halves, with a pause in between; then remove it."""
    whole = context.harness.spec_path(context.job).read_bytes()
    path = context.harness.jobs / f"half-{context.random.randrange(10**6):06d}.json"
    path.touch(mode=0o644)
    path.write_bytes(whole[: len(whole) // 2])
    context.harness.later(HALF_LIMIT_S, lambda: path.unlink(missing_ok=True))
    return Struck(f"half a spec under the name {path.name}, removed after {HALF_LIMIT_S:g} s")


def _delete_rank_log(context: Context) -> Struck:
    path = context.run.rank_log(context.rank)
    if not path.exists():
        raise NotNowError(f"{path} is not there")
    path.unlink()
    return Struck(f"{path.name} removed")


def _delete_supervisor_log(context: Context) -> Struck:
    path = context.harness.state.log
    if not path.exists():
        raise NotNowError(f"{path} is not there")
    path.unlink()
    return Struck(f"{path.name} removed")


def _start_second_supervisor(context: Context) -> Struck:
    """Start a second supervisor on the same folders: it must refuse, and name the first."""
    first = context.harness.supervisor_pid()
    second = subprocess.run(
        [
            *(sys.executable, "-m", "trainerd", "run"),
            *("--jobs", str(context.harness.jobs), "--state", str(context.harness.state.root)),
        ],
        capture_output=True,
        text=True,
        timeout=SECOND_SUPERVISOR_LIMIT_S,
        check=False,
    )
    said = second.stdout + second.stderr
    assert second.returncode != 0, "a second supervisor was let in"
    assert str(first) in said, f"the second supervisor does not name the first: {said}"
    return Struck(f"a second supervisor was refused with exit code {second.returncode}")


register(Fault("spec-half-written", "a spec is written by halves", _write_half_a_spec, soak_weight=1))
register(Fault("rank-log-deleted", "the log of a rank is deleted", _delete_rank_log, soak_weight=1))
register(
    Fault(
        "supervisor-log-deleted",
        "the log of the supervisor is deleted",
        _delete_supervisor_log,
        soak_weight=0.5,
    )
)
register(
    Fault(
        "second-supervisor",
        "a second supervisor is started on the same folders",
        _start_second_supervisor,
        soak_weight=0.3,
    )
)
