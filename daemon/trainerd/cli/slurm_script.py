"""The batch script that runs a job under Slurm, and lets it go on after limits and preemption: pure.

What the controller says once the job has left decides whether the script puts it back into the queue. A job
that was cancelled is completing by then, one that Slurm requeues itself is too; one that was warned runs, and
one whose time is over says so.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract import exit_codes

if TYPE_CHECKING:
    from trainerd.contract.resolved import ResolvedJob

STEP_MARGIN_S: Final = 30
"""How much longer before the limit the warning comes than leaving takes at most, in seconds: for a step."""

WARNING_MAX_S: Final = 65535
"""The longest time before the limit at which Slurm can send a signal, in seconds."""

_MIB: Final = 1 << 20
_TIME: Final = re.compile(
    r"(?:(?P<days>[0-9]{1,4})-)?(?P<first>[0-9]{1,6})(?::(?P<second>[0-9]{1,2}))?(?::(?P<third>[0-9]{1,2}))?"
)

_SCRIPT: Final = """\
#!/bin/bash
{options}
# Written by `trainerd slurm`. Slurm warns {warning_s} s before its limit: the grace period of the job
# is {grace_s:g} s, and `trainerd exec` leaves {margin_s:g} s later at the latest.

child="" asked=""
# The warning comes to this shell alone.
trap 'asked=1; [ -z "$child" ] || kill -USR1 "$child"' USR1
# SIGTERM comes to each process by itself; this shell has only to stay.
trap : TERM

{command} &
child=$!
[ -z "$asked" ] || kill -USR1 "$child"
until wait "$child"; code=$?; ! kill -0 "$child" 2> /dev/null; do :; done
# 138: the warning came before anything had been started.
[ "$code" -ne 138 ] || code={again}

# Whether it is for this script to put the job back. Else it was cancelled, or Slurm does it.
is_ours() {{
    local found try
    for try in 1 2 3 4 5; do
        found=$(scontrol show job -o "$SLURM_JOB_ID") && break
        sleep 2
    done
    [[ " $found " =~ " JobState=RUNNING " || " $found " =~ " Reason=TimeLimit " ]]
}}

if [ "$code" -eq {again} ] && is_ours; then
    for try in 1 2 3 4 5; do
        # Slurm ends this script. To exit now would count as the end of a job that is being preempted.
        scontrol requeue "$SLURM_JOB_ID" && exec sleep 300
        sleep 2
    done
    echo "trainerd: job $SLURM_JOB_ID was not put back into the queue; submit it again, and it goes on" >&2
fi
exit "$code"
"""


@dataclass(frozen=True)
class SlurmWish:
    """What is asked of Slurm beside what the spec says.

    Attributes:
        time: Time limit, as Slurm writes it; None is that of the partition.
        options: Further options of sbatch, without the two dashes; they replace those of the same name.
        nodes: How many nodes; what the spec asks for, each of them has.
    """

    time: str | None = None
    options: tuple[str, ...] = ()
    nodes: int = 1


def warning_s(grace_s: float, margin_s: float) -> int:
    """Return how long before the limit Slurm is to warn, in seconds.

    Args:
        grace_s: Grace period of the job.
        margin_s: How long after it `trainerd exec` leaves at the latest.

    Raises:
        ValueError: Slurm cannot warn that early.
    """
    found = math.ceil(grace_s + margin_s) + STEP_MARGIN_S
    if found > WARNING_MAX_S:
        raise ValueError(
            f"grace {grace_s:g} s is too long: Slurm warns {WARNING_MAX_S} s before a limit at most"
        )
    return found


def limit_s(text: str) -> int:
    """Return the seconds of a time limit as Slurm writes it: ``30`` (minutes), ``4:00:00``, ``1-12``.

    Raises:
        ValueError: It is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no time limit: write minutes, 4:00:00 or 1-12:00:00")
    parts = [int(part) for part in found.group("first", "second", "third") if part is not None]
    if found["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return ((int(found["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(parts) == 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2]
    return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)


def batch_script(job: ResolvedJob, wish: SlurmWish, *, command: tuple[str, ...], margin_s: float) -> str:
    """Return the batch script.

    Args:
        job: The job.
        wish: What is asked of Slurm.
        command: Runs `trainerd exec` on its spec.
        margin_s: How long after the grace period that leaves at the latest.

    Raises:
        ValueError: The limit leaves no time to train, or Slurm cannot warn early enough.
    """
    lead_s = warning_s(job.grace_s, margin_s)
    if wish.time is not None and limit_s(wish.time) <= lead_s:
        raise ValueError(
            f"a limit of {limit_s(wish.time)} s leaves no time to train: the warning comes {lead_s} s before "
            f"(grace {job.grace_s:g} s and margins)"
        )
    options = [
        f"job-name={job.name}",
        "requeue",
        "open-mode=append",
        f"output={job.name}-%j.log",
        f"nodes={wish.nodes}",
        "ntasks-per-node=1",
        f"cpus-per-task={math.ceil(job.resources.cpus)}",
        f"signal=B:USR1@{lead_s}",
    ]
    options += [f"time={wish.time}"] if wish.time is not None else []
    options += [f"gpus-per-node={job.resources.gpus}"] if job.resources.gpus else []
    if job.resources.memory_bytes is not None:
        options.append(f"mem={math.ceil(job.resources.memory_bytes / _MIB)}M")
    asked = {option.partition("=")[0] for option in wish.options}
    options = [option for option in options if option.partition("=")[0] not in asked]
    options += wish.options
    if wish.nodes > 1:
        # One that ends is for the others to judge; and srun takes the number of cores from no variable.
        cores = next(each for each in options if each.startswith("cpus-per-task="))
        command = ("srun", "--kill-on-bad-exit=0", "--ntasks-per-node=1", f"--{cores}", *command)
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH --{option}" for option in options),
        warning_s=lead_s,
        grace_s=job.grace_s,
        margin_s=margin_s,
        command=shlex.join(command),
        again=exit_codes.DRAINED,
    )
