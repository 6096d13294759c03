"""The environment variables through which the shim tells a rank who it is and what is asked of it.

A training script run with no supervisor has none of them, or sets some by hand: each has a default.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, get_args

from trainerd.contract import codec
from trainerd.contract.policy import (
    Cadence,
    CheckpointPolicy,
    KeepBest,
    KeepEvery,
    MemoryMode,
    MirrorPolicy,
    OnNonfiniteLoss,
    RetentionPolicy,
    Tracker,
)
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

RUN_DIR: Final = "TRAINERD_RUN_DIR"
RUN: Final = "TRAINERD_RUN"
"""Name of the run, of a program without a supervisor."""
FRESH: Final = "TRAINERD_FRESH"
"""``1``: the run there is moved aside, and a new one begins."""
ATTEMPT_DIR: Final = "TRAINERD_ATTEMPT_DIR"
JOB: Final = "TRAINERD_JOB"
ATTEMPT: Final = "TRAINERD_ATTEMPT"
NODE: Final = "TRAINERD_NODE"
"""Number of this node, of a job of several; then the attempt folder is that of this node alone."""
ATTEMPT_ID: Final = "TRAINERD_ATTEMPT_ID"
"""Marks every descendant of an attempt, so that those who changed session and parent are found too."""
SPEC_DIGEST: Final = "TRAINERD_SPEC_DIGEST"
GRACE_S: Final = "TRAINERD_GRACE_S"
SEED: Final = "TRAINERD_SEED"
ON_NONFINITE_LOSS: Final = "TRAINERD_ON_NONFINITE_LOSS"
TRACKERS: Final = "TRAINERD_TRACKERS"
"""Names of experiment trackers, with commas between them; empty: none."""
CHECK: Final = "TRAINERD_CHECK"
"""``off``: the session does not analyse the script that opens it."""

STANDBY: Final = "TRAINERD_STANDBY"
"""``1``: the session notes what the program has imported, for the standby of the next attempt."""

COMPILED_DIR: Final = "TRAINERD_COMPILED_DIR"
"""Folder of the run for what `torch.compile` compiles; the shim adds that of the machine to it."""

EVERY_STEPS: Final = "TRAINERD_CHECKPOINT_EVERY_STEPS"
EVERY_SECONDS: Final = "TRAINERD_CHECKPOINT_EVERY_SECONDS"
EVERY_EPOCHS: Final = "TRAINERD_CHECKPOINT_EVERY_EPOCHS"
AUTO: Final = "TRAINERD_CHECKPOINT_AUTO"
AT_START: Final = "TRAINERD_CHECKPOINT_AT_START"
KEEP_LAST: Final = "TRAINERD_CHECKPOINT_KEEP_LAST"
KEEP_BEST: Final = "TRAINERD_CHECKPOINT_KEEP_BEST"
KEEP_EVERY: Final = "TRAINERD_CHECKPOINT_KEEP_EVERY"
MIRROR: Final = "TRAINERD_CHECKPOINT_MIRROR"
"""JSON of a `MirrorPolicy`."""
MEMORY: Final = "TRAINERD_CHECKPOINT_MEMORY"
"""``auto``: copies of the newest boundary are kept in memory; or ``off``."""
MEMORY_DIR: Final = "TRAINERD_MEMORY_DIR"
"""Folder on a tmpfs for these copies, ``/dev/shm`` if not set."""
MEMORY_SHARE: Final = "TRAINERD_MEMORY_SHARE"
"""Share of the training time that these copies may cost, 0.02 if not set."""

CHECKPOINT_VARIABLES: Final = (
    EVERY_STEPS,
    EVERY_SECONDS,
    EVERY_EPOCHS,
    AUTO,
    AT_START,
    KEEP_LAST,
    KEEP_BEST,
    KEEP_EVERY,
    MIRROR,
    MEMORY,
)

T = TypeVar("T")

_NEVER: Final = "never"
_ALL: Final = "all"


@dataclass(frozen=True)
class TrainingEnvironment:
    """What a rank is told.

    Attributes:
        run_dir: The run folder, None without a supervisor.
        run: Name of the run, None if none was given.
        is_fresh: Whether to begin a new run; None leaves it to the script.
        attempt_dir: The folder of this attempt, None without a supervisor.
        job: Name of the job, None without a supervisor.
        attempt: Number of the attempt, from 1.
        spec_digest: Of the spec in force, empty without a supervisor.
        grace_s: Seconds from a request to stop until SIGKILL; None is not known.
        seed: Seed of the data order and of sample randomness, None leaves it to the script.
        on_nonfinite_loss: What becomes of a run whose loss is NaN or infinite.
        checkpoint: When to checkpoint and what to keep; None leaves it to the script.
        checkpoint_variables: Which of the variables of `checkpoint` to set: those that the spec speaks of, so
            that what it leaves open stays the script's. None sets all.
        trackers: Experiment trackers that the session feeds; None leaves them to the script.
        rank: Which of `world_size` processes this is, over all machines.
        local_rank: Which of those on this machine.
        world_size: How many there are.
        has_standby: Whether to note what the program has imported.
        node: Which node this is, of a job of several; None if it has one.
        compiled_dir: Folder of compiled code; None if that is not the run's.
    """

    run_dir: Path | None = None
    attempt_dir: Path | None = None
    job: str | None = None
    attempt: int = 1
    spec_digest: str = ""
    grace_s: float | None = None
    seed: int | None = None
    on_nonfinite_loss: OnNonfiniteLoss = "ignore"
    checkpoint: CheckpointPolicy | None = None
    checkpoint_variables: tuple[str, ...] | None = None
    trackers: tuple[Tracker, ...] | None = None
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    run: str | None = None
    is_fresh: bool | None = None
    has_standby: bool = False
    node: int | None = None
    compiled_dir: Path | None = None

    @property
    def rank_in_attempt(self) -> int:
        """Number by which the files of the attempt folder name this rank: the shim counts from 0."""
        return self.rank if self.node is None else self.local_rank


def to_environ(environment: TrainingEnvironment) -> dict[str, str]:
    """Return the variables that say what `environment` says, without RANK and its like."""
    found: dict[str, str | None] = {
        RUN_DIR: _text(environment.run_dir),
        ATTEMPT_DIR: _text(environment.attempt_dir),
        JOB: environment.job,
        ATTEMPT: str(environment.attempt),
        ATTEMPT_ID: f"{environment.run_dir}:{environment.attempt}" if environment.run_dir else None,
        SPEC_DIGEST: environment.spec_digest or None,
        GRACE_S: _text(environment.grace_s),
        SEED: _text(environment.seed),
        ON_NONFINITE_LOSS: environment.on_nonfinite_loss,
        TRACKERS: None if environment.trackers is None else ",".join(environment.trackers),
        STANDBY: "1" if environment.has_standby else None,
        NODE: _text(environment.node),
        COMPILED_DIR: _text(environment.compiled_dir),
    }
    if environment.checkpoint is not None:
        every, keep = environment.checkpoint.every, environment.checkpoint.keep
        spoken_of = environment.checkpoint_variables
        said: dict[str, str | None] = {
            EVERY_STEPS: str(every.steps or _NEVER),
            EVERY_SECONDS: str(every.seconds or _NEVER),
            EVERY_EPOCHS: str(every.epochs or _NEVER),
            AUTO: str(int(every.auto)),
            AT_START: str(int(every.at_start)),
            KEEP_LAST: _ALL if keep.keep_last is None else str(keep.keep_last),
            KEEP_BEST: json.dumps([codec.to_plain(best) for best in keep.keep_best]),
            KEEP_EVERY: json.dumps(codec.to_plain(keep.keep_every)) if keep.keep_every else None,
            MIRROR: json.dumps(codec.to_plain(mirror)) if (mirror := environment.checkpoint.mirror) else None,
            MEMORY: environment.checkpoint.memory,
        }
        found |= {name: value for name, value in said.items() if spoken_of is None or name in spoken_of}
    return {name: value for name, value in found.items() if value is not None}


def from_environ(
    environ: Mapping[str, str], *, script: CheckpointPolicy | None = None
) -> TrainingEnvironment:
    """Read the variables.

    Args:
        environ: The process's environment.
        script: What the script says about checkpoints: holds where the variables are silent.

    Raises:
        UserError: One of them cannot be read; the message names it.
    """
    return TrainingEnvironment(
        run_dir=_read(environ, RUN_DIR, Path),
        attempt_dir=_read(environ, ATTEMPT_DIR, Path),
        job=environ.get(JOB),
        attempt=_read(environ, ATTEMPT, int) or 1,
        spec_digest=environ.get(SPEC_DIGEST, ""),
        grace_s=_read(environ, GRACE_S, float),
        seed=_read(environ, SEED, int),
        on_nonfinite_loss=_read(environ, ON_NONFINITE_LOSS, _on_nonfinite_loss) or "ignore",
        checkpoint=_checkpoint_policy(environ, script),
        trackers=_read(environ, TRACKERS, _trackers),
        rank=_read(environ, "RANK", int) or 0,
        local_rank=_read(environ, "LOCAL_RANK", int) or 0,
        world_size=_read(environ, "WORLD_SIZE", int) or 1,
        run=environ.get(RUN) or None,
        is_fresh=_read(environ, FRESH, _flag) if environ.get(FRESH) else None,
        has_standby=environ.get(STANDBY) == "1",
        node=_read(environ, NODE, int),
        compiled_dir=_read(environ, COMPILED_DIR, Path),
    )


def _checkpoint_policy(
    environ: Mapping[str, str], script: CheckpointPolicy | None
) -> CheckpointPolicy | None:
    if not any(name in environ for name in CHECKPOINT_VARIABLES):
        return script
    script = script or CheckpointPolicy()
    every, keep = script.every, script.keep
    return CheckpointPolicy(
        every=Cadence(
            steps=_limit(environ, EVERY_STEPS, int, every.steps),
            seconds=_limit(environ, EVERY_SECONDS, float, every.seconds),
            epochs=_limit(environ, EVERY_EPOCHS, int, every.epochs),
            auto=environ.get(AUTO, str(int(every.auto))) == "1",
            at_start=environ.get(AT_START, str(int(every.at_start))) == "1",
        ),
        keep=RetentionPolicy(
            keep_last=_limit(environ, KEEP_LAST, int, keep.keep_last),
            keep_best=_read(environ, KEEP_BEST, _keep_best) or keep.keep_best,
            keep_every=_read(environ, KEEP_EVERY, _keep_every) or keep.keep_every,
        ),
        mirror=_read(environ, MIRROR, _mirror) or script.mirror,
        memory=_read(environ, MEMORY, memory_mode) or script.memory,
    )


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("it is 0 or 1")
    return text == "1"


def _on_nonfinite_loss(text: str) -> OnNonfiniteLoss:
    known: tuple[OnNonfiniteLoss, ...] = get_args(OnNonfiniteLoss)
    for word in known:
        if word == text:
            return word
    raise ValueError(f"it is not one of {', '.join(known)}")


def memory_mode(text: str) -> MemoryMode:
    """Return a setting of the copies in memory.

    Raises:
        ValueError: It is not one.
    """
    known: tuple[MemoryMode, ...] = get_args(MemoryMode)
    for word in known:
        if word == text:
            return word
    raise ValueError(f"it is not {' or '.join(known)}")


def _trackers(text: str) -> tuple[Tracker, ...]:
    return known_trackers([word.strip() for word in text.split(",") if word.strip()])


def known_trackers(words: Iterable[str]) -> tuple[Tracker, ...]:
    """Return names of trackers, each once.

    Raises:
        ValueError: One is not the name of a tracker.
    """
    known: tuple[Tracker, ...] = get_args(Tracker)
    found: dict[Tracker, None] = {}
    for word in words:
        match = [each for each in known if each == word]
        if not match:
            raise ValueError(f"no tracker {word!r:.60}; there are {', '.join(known)}")
        found[match[0]] = None
    return tuple(found)


def _keep_best(text: str) -> tuple[KeepBest, ...]:
    return tuple([codec.from_plain(item, KeepBest, source=KEEP_BEST) for item in json.loads(text)])


def _keep_every(text: str) -> KeepEvery:
    return codec.from_plain(json.loads(text), KeepEvery, source=KEEP_EVERY)


def _mirror(text: str) -> MirrorPolicy:
    return codec.from_plain(json.loads(text), MirrorPolicy, source=MIRROR)


def _limit(environ: Mapping[str, str], name: str, kind: Callable[[str], T], default: T | None) -> T | None:
    if name not in environ:
        return default
    return None if environ[name] in {_NEVER, _ALL} else _read(environ, name, kind)


def _read(environ: Mapping[str, str], name: str, kind: Callable[[str], T]) -> T | None:
    if name not in environ:
        return None
    try:
        return kind(environ[name])
    except (ValueError, TypeError, CorruptError) as error:
        raise UserError(
            f"{name}={environ[name]!r} cannot be read: {error}", hint="unset it or correct it"
        ) from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)


VARIABLES: Final = tuple(
    [
        value
        for name, value in sorted(globals().items())
        if name.isupper() and isinstance(value, str) and name[0] != "_"
    ]
)
"""Every TRAINERD_ variable, for those who must clear or show them."""
