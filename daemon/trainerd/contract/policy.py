"""When to checkpoint, what to keep, how often to try again: the policies that a spec or a script can set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

RETENTION_FORMAT: Final = "trainerd.retention/1"
"""Of the file in which a run says what it keeps."""

Completion = Literal["exit-zero", "record"]
"""When a program without a session has done its work: when it exits with 0, or when the run has a finished
record. A program with a session has when the session says so, whatever is written here."""

Mode = Literal["max", "min"]
OnTie = Literal["first", "latest"]
OnNonfiniteLoss = Literal["ignore", "stop", "rollback"]
"""What becomes of a run whose loss is NaN or infinite: nothing, it ends, it goes back to the checkpoint
before."""
MemoryMode = Literal["auto", "off"]
"""Whether copies of the newest boundary are kept in memory, as often as that costs next to nothing."""
Tracker = Literal["mlflow", "tensorboard", "wandb"]
"""Experiment trackers that a session can feed."""


@dataclass(frozen=True)
class KeepBest:
    """Keep the `n` checkpoints whose score `metric` is best.

    Attributes:
        metric: Name of the score, as given to ``session.report``.
        n: How many to keep.
        mode: Whether a larger or a smaller score is better.
        on_tie: Which of two equal scores ranks higher: the first one reached or the latest.
    """

    metric: str
    n: int = 1
    mode: Mode = "max"
    on_tie: OnTie = "first"


@dataclass(frozen=True)
class KeepEvery:
    """Keep for good the first checkpoint in each stretch of so many steps, seconds or epochs.

    Attributes:
        steps: Length of a stretch in steps.
        seconds: Length of a stretch in seconds of the clock.
        epochs: Length of a stretch in epochs.
    """

    steps: int | None = None
    seconds: float | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class RetentionPolicy:
    """Which checkpoints are kept. `keep_last` None keeps all of them."""

    keep_last: int | None = 3
    keep_best: tuple[KeepBest, ...] = ()
    keep_every: KeepEvery | None = None


@dataclass(frozen=True)
class MirrorPolicy:
    """Where checkpoints are copied to besides.

    Attributes:
        url: One that fsspec knows, such as ``s3://bucket/runs``. A run has the folder of its name there.
        bytes_per_s: How fast to copy at most; None is no limit.
    """

    url: str
    bytes_per_s: float | None = None


@dataclass(frozen=True)
class Cadence:
    """When to checkpoint: whichever comes first.

    Attributes:
        steps: Every so many steps; None is never.
        seconds: When so many seconds have passed since the last one; None is never.
        epochs: At the end of every so many epochs; None is never.
        at_start: Once before the first step of a fresh run.
        auto: Choose the interval from measurements (`steps` and `seconds` then do not apply).
    """

    steps: int | None = None
    seconds: float | None = 300.0
    epochs: int | None = 1
    at_start: bool = False
    auto: bool = False


@dataclass(frozen=True)
class RestartPolicy:
    """How often to try again, and how long to wait before.

    Attributes:
        budget: Attempts without progress before the job is parked.
        initial_s: Wait before the first retry, in seconds; doubled each time.
        max_s: Longest wait, in seconds.
    """

    budget: int = 5
    initial_s: float = 1.0
    max_s: float = 300.0


@dataclass(frozen=True)
class Group:
    """Jobs of which only so many run at once.

    Attributes:
        name: Of the group.
        max_running: So many of them, this one included.
    """

    name: str
    max_running: int


@dataclass(frozen=True)
class Resources:
    """What one attempt occupies while it runs."""

    gpus: int = 0
    cpus: float = 1.0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class CheckpointPolicy:
    """Cadence, retention, mirror and copies in memory together: the `checkpoint` section of a spec."""

    every: Cadence = field(default_factory=Cadence)
    keep: RetentionPolicy = field(default_factory=RetentionPolicy)
    mirror: MirrorPolicy | None = None
    memory: MemoryMode = "off"
