"""Chooses the folder of a run that has no supervisor: the one that this program was training, or a new one.

Runs are kept in ``.trainerd/runs`` of the folder in which the program was started. Each says in ``run.json``
which script with which arguments trains it.

Invariants:
    Nothing is made or changed here: the run is the same until its lock is held.
    A run that was moved aside, or whose name a person chose, is continued only by its name.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainerd.contract.names import check_name
from trainerd.contract.paths import RunPaths
from trainerd.contract.run_record import RunRecord, read_run_record
from trainerd.training.which_run.argument_difference import differing
from trainerd.training.which_run.kept_runs import (
    RUNS,
    is_edited,
    is_the_only_one,
    old_run,
    recorded,
    saved,
)
from trainerd.training.which_run.program_identity import INTERACTIVE, ProgramIdentity
from trainerd.training.which_run.run_names import default_name, old_name

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
        start: Folder in which the program was started.
        is_adopted: Whether it was made by a trainerd that named runs after the script alone.
        is_edited: Whether it is adopted although another text of the script has made it.
        others: Earlier runs of the same script with other arguments, the nearest first; of a new run only.
    """

    paths: RunPaths
    record: RunRecord
    start: Path
    is_adopted: bool = False
    is_edited: bool = False
    others: tuple[OtherRun, ...] = ()


def choose_run(
    program: ProgramIdentity, *, name: str | None = None, working_folder: Path | None = None
) -> RunChoice:
    """Return the run that `program` trains.

    Args:
        program: The program.
        name: The name that a person gave the run, None if none was given.
        working_folder: Where the program is now. Earlier versions kept runs below it.

    Raises:
        UserError: `name` cannot name a run.
    """
    folder = program.start / RUNS
    elsewhere = _seen_from(program, working_folder)
    if name is not None:
        paths = RunPaths(folder / check_name(name))
        there = _old_choice(elsewhere, name=name) if elsewhere and not paths.root.exists() else None
        return there or _continued(paths, read_run_record(paths.record), program, is_named=True)
    own = RunPaths(folder / default_name(program))
    own_record = read_run_record(own.record)
    if _is_of(own_record, program):
        return _continued(own, own_record, program)
    known = list(recorded(folder))
    for paths, record in known:
        if _is_of(record, program):
            return _continued(paths, record, program)
    found = _old_choice(program) or (_old_choice(elsewhere) if elsewhere else None)
    if found is not None:
        return dataclasses.replace(found, start=program.start)
    new = RunPaths(_free(folder, own.root.name))
    others = [(paths.root.name, record) for paths, record in known]
    old = RunPaths(folder / old_name(program))
    return RunChoice(
        new, _record(new.root.name, program), program.start, others=tuple(_others(others, old, program))
    )


def _record(name: str, program: ProgramIdentity, *, is_named: bool = False) -> RunRecord:
    return RunRecord(name, program.script, program.arguments, is_named)


def _continued(
    paths: RunPaths, former: RunRecord | None, program: ProgramIdentity, *, is_named: bool = False
) -> RunChoice:
    """Return the choice of a run that may be there: it keeps its name and gets this program's arguments."""
    name = former.name if former is not None else paths.root.name
    was_named = former.is_named if former is not None else is_named and not paths.root.exists()
    return RunChoice(paths, _record(name, program, is_named=was_named), program.start)


def _is_of(record: RunRecord | None, program: ProgramIdentity) -> bool:
    return (
        record is not None
        and not record.is_named
        and record.script == program.script
        and not differing(record.arguments, program.arguments)
    )


def _free(folder: Path, name: str) -> Path:
    """Return a folder that does not hold the run of another program."""
    for number in range(2, NUMBERS_MAX):
        place = folder / name
        if read_run_record(RunPaths(place).record) is None and not saved(RunPaths(place)):
            return place
        name = f"{name.removesuffix(f'-{number - 1}')}-{number}"
    return folder / name


def _seen_from(program: ProgramIdentity, folder: Path | None) -> ProgramIdentity | None:
    """Return the program as if it was started in `folder`, None if it was or if it has no script.

    The script is relative to the folder then, so that the runs of another script that is started there are
    not taken for those of this one.
    """
    start = Path(os.path.realpath(program.start))
    if folder is None or program.script == INTERACTIVE or ":" in program.script:
        return None
    here = Path(os.path.realpath(folder))
    if here == start:
        return None
    return ProgramIdentity(os.path.relpath(start / program.script, here), program.arguments, here)


def _old_choice(program: ProgramIdentity, *, name: str | None = None) -> RunChoice | None:
    """Return the run of this program that an earlier version has made below `program.start`, if any.

    Args:
        program: The program, seen from the folder.
        name: Name of the run that is wanted; None for the one whose arguments are these.
    """
    paths = RunPaths(program.start / RUNS / old_name(program))
    if name is not None and name != paths.root.name:
        return None
    record = read_run_record(paths.record)
    if record is not None:
        is_wanted = record.script == program.script if name is not None else _is_of(record, program)
        return _continued(paths, record, program) if is_wanted else None
    found = old_run(paths)
    if found is None or ":" in program.script:
        return None
    if name is None and found.arguments is not None and differing(found.arguments, program.arguments):
        return None
    was_edited = is_edited(found, program)
    if was_edited and not is_the_only_one(found, program):
        return None
    record = _record(paths.root.name, program)
    return RunChoice(paths, record, program.start, is_adopted=True, is_edited=was_edited)


def _others(known: list[tuple[str, RunRecord]], old: RunPaths, program: ProgramIdentity) -> list[OtherRun]:
    found = [
        OtherRun(name, record.arguments) for name, record in known if program.is_same_script(record.script)
    ]
    former = old_run(old)
    if former is not None:
        found.append(OtherRun(old.root.name, former.arguments or ()))
    return sorted(found, key=lambda other: (len(differing(other.arguments, program.arguments)), other.name))
