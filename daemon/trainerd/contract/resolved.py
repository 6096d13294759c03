"""A job whose spec was read, validated and completed with defaults and absolute paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from trainerd.contract import codec
from trainerd.contract.hooks import Hook
from trainerd.contract.policy import (
    CheckpointPolicy,
    Completion,
    Group,
    OnNonfiniteLoss,
    Resources,
    RestartPolicy,
    Tracker,
)

FORMAT: Final = "trainerd.job/1"


@dataclass(frozen=True)
class ResolvedJob:
    """Everything the supervisor needs to know of a job; what is here is what the journal keeps.

    Attributes:
        name: The job.
        command: Program and arguments, before `python` is put in the place of the word ``python``.
        workdir: Absolute folder in which the ranks start.
        python: Absolute path of the interpreter that ``python`` means; None is the supervisor's own.
        env: Variables that the spec sets. Never those of `env_file`.
        env_file: Absolute path of a file of secrets, read by the shim at each launch and copied nowhere.
        nproc: Ranks on this machine.
        is_group_of_one: Whether a single rank is told what torchrun tells, as `nproc: 1` asks. Several ranks
            always are.
        completion: When a program without a session has done its work.
        grace_s: From the request to stop until SIGKILL, in seconds.
        stall_timeout_s: Seconds without progress that count as a stall; "auto" learns them; None is never.
        on_nonfinite_loss: What becomes of a run whose loss is NaN or infinite.
        priority: Higher goes first.
        after: Jobs that must be finished before this one is launched under its spec.
        group: The jobs of which only so many run at once; None is no such group.
        checkpoint_variables: The variables of `trainerd.contract.environment` for what the spec says about
            checkpoints; on the rest the training script has its say.
        notify: Hooks of this job alone.
        trackers: Experiment trackers that a session feeds; None leaves them to the script.
        standby: Whether a process is kept ready for the next attempt: "auto", where possible, or "off".
        spec_path: Absolute path of the spec.
        spec_digest: xxh3-128 of what the spec says, in hexadecimal; tells whether its meaning changed.
    """

    name: str
    command: tuple[str, ...]
    workdir: str
    spec_path: str
    spec_digest: str
    python: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    env_file: str | None = None
    nproc: int = 1
    resources: Resources = field(default_factory=Resources)
    checkpoint: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    grace_s: float = 30.0
    stall_timeout_s: float | Literal["auto"] | None = "auto"
    on_nonfinite_loss: OnNonfiniteLoss = "ignore"
    priority: int = 0
    checkpoint_variables: tuple[str, ...] = ()
    is_group_of_one: bool = False
    completion: Completion = "exit-zero"
    notify: tuple[Hook, ...] = ()
    trackers: tuple[Tracker, ...] | None = None
    after: tuple[str, ...] = ()
    group: Group | None = None
    standby: Literal["auto", "off"] = "off"


def encode(job: ResolvedJob) -> bytes:
    """Encode a job for the journal and the run folder."""
    return codec.to_json(job, FORMAT)


def decode(data: bytes, *, source: str = "job") -> ResolvedJob:
    """Decode what `encode` wrote.

    Raises:
        CorruptError: It is not such a record.
    """
    return codec.from_json(data, ResolvedJob, FORMAT, source=source)
