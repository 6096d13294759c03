"""Chooses the folder of a run that has no supervisor: the one that this program was training, or a new one.

Runs are kept in ``.trainerd/runs`` of the folder in which the program was started. Each says in ``run.json``
which script with which arguments trains it.

Invariants:
    Nothing is made or changed here: the run is the same until its lock is held.
    A run that was moved aside, or whose name a person chose, is continued only by its name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.checkpoint.run_aside import is_aside
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.names import check_name
from trainerd.contract.paths import RunPaths
from trainerd.contract.run_record import RunRecord, read_run_record
from trainerd.errors import TrainerdError
from trainerd.training.which_run.argument_difference import differing, options_of
from trainerd.training.which_run.program_identity import INTERACTIVE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.training.which_run.program_identity import ProgramIdentity

RUNS: Final = Path(".trainerd") / "runs"
RUNS_READ_MAX: Final = 2000
"""So many runs of a folder are looked at."""
DIGEST_CHARACTERS: Final = 8
STEM_CHARACTERS_MAX: Final = 60
NUMBERS_MAX: Final = 10_000


@dataclass(frozen=True)
class OtherRun:
    """An earlier run of the same script, with other arguments."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class RunChoice:
    """The run that a program trains.

    Attributes:
        paths: Its folder.
        record: What `run.json` is to say.
        is_adopted: Whether it was made by a trainerd that named runs after the script alone.
        others: Earlier runs of the same script with other arguments, the nearest first; of a new run only.
    """

    paths: RunPaths
    record: RunRecord
    is_adopted: bool = False
    others: tuple[OtherRun, ...] = ()


def choose_run(program: ProgramIdentity, *, name: str | None = None) -> RunChoice:
    """Return the run that `program` trains.

    Args:
        program: The program.
        name: The name that a person gave the run, None if none was given.

    Raises:
        UserError: `name` cannot name a run.
    """
    folder = program.start / RUNS
    if name is not None:
        return _continued(RunPaths(folder / check_name(name)), program, is_named=True)
    own = RunPaths(folder / default_name(program))
    if _is_of(read_run_record(own.record), program):
        return _continued(own, program)
    known = list(_recorded(folder))
    for paths, record in known:
        if _is_of(record, program):
            return _continued(paths, program)
    old = RunPaths(folder / _old_name(program))
    if old.root not in {paths.root for paths, _ in known} and _is_adoptable(old, program):
        return RunChoice(old, _record(old.root.name, program), is_adopted=True)
    new = RunPaths(_free(folder, own.root.name))
    others = [(paths.root.name, record) for paths, record in known]
    return RunChoice(new, _record(new.root.name, program), others=tuple(_others(others, old, program)))


def default_name(program: ProgramIdentity) -> str:
    """Return the name of the run of a program: its stem, and a digest unless that tells all."""
    stem = _stem(program.script)
    is_plain = program.script in {f"{stem}.py", stem} and _slug(stem) == stem and not program.arguments
    if is_plain:
        return stem
    text = json.dumps([program.script, sorted(options_of(program.arguments).items())])
    digest = digest_of_bytes(text.encode(errors="replace"))[-DIGEST_CHARACTERS:]
    return f"{_slug(stem)[:STEM_CHARACTERS_MAX]}-{digest}"


def _stem(script: str) -> str:
    kind, has_kind, rest = script.partition(":")
    return (Path(rest).stem if kind == "notebook" else kind) if has_kind else Path(script).stem


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:STEM_CHARACTERS_MAX] or "run"


def _record(name: str, program: ProgramIdentity, *, is_named: bool = False) -> RunRecord:
    return RunRecord(name, program.script, program.arguments, is_named)


def _continued(paths: RunPaths, program: ProgramIdentity, *, is_named: bool = False) -> RunChoice:
    """Return the choice of a run that may be there: it keeps its name and gets this program's arguments."""
    former = read_run_record(paths.record)
    name = former.name if former is not None else paths.root.name
    was_named = former.is_named if former is not None else is_named and not paths.root.exists()
    return RunChoice(paths, _record(name, program, is_named=was_named))


def _is_of(record: RunRecord | None, program: ProgramIdentity) -> bool:
    return (
        record is not None
        and not record.is_named
        and record.script == program.script
        and not differing(record.arguments, program.arguments)
    )


def _recorded(folder: Path) -> Iterator[tuple[RunPaths, RunRecord]]:
    """Yield the runs of a folder that say which program they belong to, by name."""
    try:
        found = sorted(folder.iterdir())[:RUNS_READ_MAX]
    except OSError:
        return
    for root in found:
        paths = RunPaths(root)
        if not is_aside(root.name) and (record := read_run_record(paths.record)) is not None:
            yield paths, record


def _free(folder: Path, name: str) -> Path:
    """Return a folder that does not hold the run of another program."""
    for number in range(2, NUMBERS_MAX):
        place = folder / name
        if read_run_record(RunPaths(place).record) is None and not _saved(RunPaths(place)):
            return place
        name = f"{name.removesuffix(f'-{number - 1}')}-{number}"
    return folder / name


# ---------------------------------------------------------------------- runs named after the script alone


@dataclass(frozen=True)
class _OldRun:
    """What the newest checkpoint of such a run says of its program."""

    arguments: tuple[str, ...] | None
    code: dict[str, str]


def _old_run(paths: RunPaths) -> _OldRun | None:
    """Return what is known of a run that was named after its script alone, None if nothing is saved there."""
    if read_run_record(paths.record) is not None or not (saved := _saved(paths)):
        return None
    fingerprint = saved[-1].manifest.fingerprint
    arguments = fingerprint.get("config", {}).get("arguments")
    return _OldRun(
        tuple([str(each) for each in arguments]) if arguments is not None else None,
        fingerprint.get("code", {}),
    )


def _old_name(program: ProgramIdentity) -> str:
    """Return the name that such a run of this program has; all that had no script shared one."""
    return INTERACTIVE if ":" in program.script else _slug(_stem(program.script))


def _is_adoptable(paths: RunPaths, program: ProgramIdentity) -> bool:
    """Tell whether such a run is this program's: its arguments, and its script as far as that is known."""
    found = _old_run(paths)
    if found is None or ":" in program.script:
        return False
    if found.arguments is not None and differing(found.arguments, program.arguments):
        return False
    script = Path(program.script)
    before = found.code.get(script.name)
    return before is None or script.parent == Path() or before == _digest_of(program.start / script)


def _digest_of(path: Path) -> str | None:
    try:
        return digest_of_bytes(path.read_bytes())
    except OSError:
        return None


def _saved(paths: RunPaths) -> Sequence[Checkpoint]:
    try:
        return CheckpointStore.of_run(paths).checkpoints()
    except (OSError, TrainerdError):
        return ()


def _others(known: list[tuple[str, RunRecord]], old: RunPaths, program: ProgramIdentity) -> list[OtherRun]:
    found = [
        OtherRun(name, record.arguments) for name, record in known if program.is_same_script(record.script)
    ]
    former = _old_run(old)
    if former is not None:
        found.append(OtherRun(old.root.name, former.arguments or ()))
    return sorted(found, key=lambda other: (len(differing(other.arguments, program.arguments)), other.name))
