"""The runs that are kept in a folder, and what those without a record of their program say of it."""

from __future__ import annotations

import glob
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.checkpoint.run_aside import is_aside
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths
from trainerd.contract.run_record import RunRecord, read_run_record
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.training.which_run.program_identity import ProgramIdentity

RUNS: Final = Path(".trainerd") / "runs"
RUNS_READ_MAX: Final = 2000
"""So many runs of a folder are looked at."""
SCRIPTS_READ_MAX: Final = 200
"""So many scripts of the same name are looked at for the one that made a run."""


def recorded(folder: Path) -> Iterator[tuple[RunPaths, RunRecord]]:
    """Yield the runs of a folder that say which program they belong to, by name."""
    try:
        found = sorted(folder.iterdir())[:RUNS_READ_MAX]
    except OSError:
        return
    for root in found:
        paths = RunPaths(root)
        if not is_aside(root.name) and (record := read_run_record(paths.record)) is not None:
            yield paths, record


def saved(paths: RunPaths) -> Sequence[Checkpoint]:
    """Return the checkpoints of a run, none if they cannot be listed."""
    try:
        return CheckpointStore.of_run(paths).checkpoints()
    except (OSError, TrainerdError):
        return ()


# ---------------------------------------------------------------------- runs named after the script alone


@dataclass(frozen=True)
class OldRun:
    """What the newest checkpoint of such a run says of its program."""

    arguments: tuple[str, ...] | None
    code: dict[str, str]


def old_run(paths: RunPaths) -> OldRun | None:
    """Return what is known of a run that was named after its script alone, None if nothing is saved there."""
    if read_run_record(paths.record) is not None or not (found := saved(paths)):
        return None
    fingerprint = found[-1].manifest.fingerprint
    arguments = fingerprint.get("config", {}).get("arguments")
    return OldRun(
        tuple([str(each) for each in arguments]) if arguments is not None else None,
        fingerprint.get("code", {}),
    )


def is_edited(run: OldRun, program: ProgramIdentity) -> bool:
    """Tell whether another text of the script, or another script of the same name, has made a run."""
    script = Path(program.script)
    before = run.code.get(script.name)
    return before is not None and script.parent != Path() and before != _digest_of(program.start / script)


def is_the_only_one(run: OldRun, program: ProgramIdentity) -> bool:
    """Tell whether no other script of the same name is known that may have made a run.

    Looked at are the records of the other runs, and scripts in the start folder and the folders in it.
    """
    script = Path(program.script)
    for _, record in recorded(program.start / RUNS):
        if record.script != program.script and Path(record.script).stem == script.stem:
            return False
    before = run.code[script.name]
    places = itertools.islice(program.start.glob(f"*/{glob.escape(script.name)}"), SCRIPTS_READ_MAX)
    return all(_digest_of(place) != before for place in (program.start / script.name, *places))


def _digest_of(path: Path) -> str | None:
    try:
        return digest_of_bytes(path.read_bytes())
    except OSError:
        return None
