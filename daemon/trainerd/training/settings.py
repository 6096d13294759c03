"""What a session is to do: what the script says, overruled by what the environment says."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from trainerd.contract.durable import make_directory, translated_space_errors
from trainerd.contract.environment import TrainingEnvironment, from_environ, known_trackers, memory_mode
from trainerd.contract.nearest import nearest_hint
from trainerd.contract.paths import AttemptPaths, RunPaths
from trainerd.contract.policy import (
    Cadence,
    CheckpointPolicy,
    KeepBest,
    KeepEvery,
    MemoryMode,
    MirrorPolicy,
    Tracker,
)
from trainerd.contract.start_folder import start_folder, working_folder
from trainerd.errors import UserError
from trainerd.training.setting_values import SEED_MAX, SEED_MIN, SettingValues
from trainerd.training.which_run.program_identity import identify_program
from trainerd.training.which_run.run_choice import choose_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainerd.training.which_run.run_choice import RunChoice

DEFAULT_SEED: Final = 0


@dataclass(frozen=True)
class Settings:
    """What a session is to do.

    Attributes:
        run: The run folder.
        attempt_paths: The folder of this attempt.
        environment: What the supervisor said, or defaults.
        checkpoint: When to save, what to keep.
        seed: Of the data order, of sample randomness and, at the start of a run, of all generators; None
            leaves the generators as the script has them and orders the data by `DEFAULT_SEED`.
        grace_s: Seconds from a request to stop until SIGKILL, None if not known.
        uncompared: Patterns of names that a resume does not compare.
        is_strict: Whether what the audit at the first step finds is an error.
        choice: How the run was found, None if its folder was given.
        is_fresh: Whether the run that is there is to be moved aside, and a new one to begin.
        takes_signals: Whether the session takes the signals that ask for a stop.
        trackers: Experiment trackers to feed.
        number: Number of this attempt, where its folder is that of one node of several.
    """

    run: RunPaths
    attempt_paths: AttemptPaths
    environment: TrainingEnvironment
    checkpoint: CheckpointPolicy
    seed: int | None
    grace_s: float | None
    uncompared: tuple[str, ...] = ()
    is_strict: bool = True
    choice: RunChoice | None = None
    is_fresh: bool = False
    takes_signals: bool = True
    trackers: tuple[Tracker, ...] = ()
    number: int | None = None

    @property
    def run_name(self) -> str:
        """Name that the checkpoints of this run bear."""
        if self.environment.job is not None:
            return self.environment.job
        return self.run.root.name if self.choice is None else self.choice.record.name

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return int(self.attempt_paths.root.name) if self.number is None else self.number


def resolve_settings(
    *,
    run_dir: str | Path | None,
    run: str | None = None,
    fresh: bool = False,
    seed: int | None,
    every: Mapping[str, Any] | Cadence | None,
    keep_last: int | None,
    keep_best: KeepBest | Mapping[str, Any] | Sequence[KeepBest | Mapping[str, Any]] | None,
    keep_every: KeepEvery | Mapping[str, Any] | None,
    mirror: str | None = None,
    memory: str = "off",
    grace_s: float | None,
    uncompared: Sequence[str] = (),
    strict: bool = True,
    signals: bool = True,
    trackers: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Complete what the script says with what the environment says; where both speak, the environment wins.

    Raises:
        UserError: A setting cannot be read.
    """
    given = SettingValues("session")
    script = CheckpointPolicy(
        given.cadence(every),
        given.retention(keep_last, keep_best, keep_every),
        _mirror(None if mirror is None else given.text("mirror", mirror, "a URL such as s3://bucket/runs")),
        _memory(given.text("memory", memory, "'auto' or 'off'")),
    )
    seed = None if seed is None else given.integer("seed", seed, at_least=SEED_MIN, at_most=SEED_MAX)
    grace_s = None if grace_s is None else given.seconds("grace_s", grace_s)
    fresh, strict = given.flag("fresh", fresh), given.flag("strict", strict)
    run = None if run is None else given.text("run", run, "the name of a run")
    folder = None if run_dir is None else Path(given.folder("run_dir", run_dir))
    patterns = given.texts("uncompared", uncompared, "a list of names of measurements")
    environment = from_environ(environ, script=script)
    if run is not None and run_dir is not None:
        raise UserError("session(run=…, run_dir=…): both say which run it is", hint="leave one of them out")
    choice = _choice(environment, run_dir=folder, name=run)
    paths = choice.paths if choice is not None else RunPaths(_given_run_dir(environment, folder).absolute())
    return Settings(
        run=paths,
        attempt_paths=AttemptPaths(environment.attempt_dir)
        if environment.attempt_dir
        else next_attempt(paths),
        environment=environment,
        checkpoint=environment.checkpoint or script,
        seed=seed if environment.seed is None else environment.seed,
        grace_s=grace_s if environment.grace_s is None else environment.grace_s,
        uncompared=patterns,
        is_strict=strict,
        choice=choice,
        is_fresh=fresh if environment.is_fresh is None else environment.is_fresh,
        takes_signals=given.flag("signals", signals),
        trackers=_trackers(given.texts("trackers", trackers, "a list of names of trackers"))
        if environment.trackers is None
        else environment.trackers,
    )


def _mirror(url: str | None) -> MirrorPolicy | None:
    if url is None:
        return None
    if "://" not in url:
        raise UserError(f"session(mirror={url!r:.200}): a URL such as s3://bucket/runs is meant")
    return MirrorPolicy(url)


def _memory(word: str) -> MemoryMode:
    try:
        return memory_mode(word)
    except ValueError as error:
        raise UserError(f"session(memory={word!r:.80}): {error}") from None


def _trackers(words: Sequence[str]) -> tuple[Tracker, ...]:
    try:
        return known_trackers(words)
    except ValueError as error:
        hint = nearest_hint(str(words[0]), get_args(Tracker)) if len(words) == 1 else None
        raise UserError(f"session(trackers=…): {error}", hint=hint) from None


def _choice(environment: TrainingEnvironment, *, run_dir: Path | None, name: str | None) -> RunChoice | None:
    """Choose the run by its name or by the program; None if its folder was given."""
    if environment.run_dir is not None or (environment.run is None and run_dir is not None):
        return None
    return choose_run(identify_program(), name=environment.run or name, working_folder=working_folder())


def _given_run_dir(environment: TrainingEnvironment, run_dir: Path | None) -> Path:
    if environment.run_dir is not None:
        return start_folder() / environment.run_dir  # it was written where the program was started
    assert run_dir is not None
    return run_dir


def next_attempt(run: RunPaths) -> AttemptPaths:
    """Return the folder of the next attempt of a run that has no supervisor."""
    numbers = [int(path.name) for path in run.attempts.glob("*") if path.name.isdigit()]
    return run.attempt(max(numbers, default=0) + 1)


def take_attempt_number(run: RunPaths) -> int:
    """Take the next attempt number of a run by making its folder, which no other process can make too.

    Raises:
        SpaceError: The disk is full or read-only.
    """
    make_directory(run.attempts)
    while True:
        folder = next_attempt(run).root
        with contextlib.suppress(FileExistsError), translated_space_errors(folder):
            folder.mkdir()
            return int(folder.name)
