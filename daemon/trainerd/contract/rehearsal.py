"""What `trainerd drill` asks of the training side, through one environment variable.

A drill disturbs the user's job at an exact boundary. Signals from outside would come at a different place in
each run, so the session strikes itself: it sends itself the signal when it has reached the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "TRAINERD_DRILL"

Action = Literal["drain", "kill", "flush", "stop"]
Place = Literal["step", "evaluation", "after-loop", "epoch", "save"]

WORKERS_NAME: Final = "workers.txt"
"""File in the folder that says which numbers of workers were changed, a line each."""

BEFORE_STEP: Final = " before the step"
"""What follows the name of a tracked module in the entry of a trace for its parameters and buffers."""

KILLED_NAME: Final = "killed.txt"
"""File in the folder with the numbers of the attempts that have killed themselves, a line a rank."""

_FORMAT: Final = "trainerd.rehearsal/1"
_NOTES_FORMAT: Final = "trainerd.rehearsal-notes/1"
_NOTES_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True)
class Strike:
    """One disturbance of an attempt.

    Attributes:
        action: ``drain`` sends SIGTERM, ``kill`` SIGKILL; ``flush`` leaves as at the end of the grace period,
            with the boundary that is copied aside; ``stop`` ends the process: it has come far enough.
        place: Where: at a boundary of steps or epochs, after a batch of an evaluation, after a loop;
            ``save``: after a Checkpointer has saved or resumed, in a script without a session.
        step: The first such place at which at least so many steps are done.
        updates: So many steps of optimizers after a ``save``.
    """

    action: Action
    place: Place
    step: int
    updates: int = 0


@dataclass(frozen=True)
class Rehearsal:
    """What an attempt of a drill does besides training.

    Attributes:
        folder: Where it notes what the drill has to know.
        strikes: Each strikes once.
        changes_workers: Whether stock loaders get another number of workers.
        traced_step: Number of the step during which the outputs of all modules are noted; None is none.
    """

    folder: str
    strikes: tuple[Strike, ...] = ()
    changes_workers: bool = False
    traced_step: int | None = None


@dataclass(frozen=True)
class RehearsalNotes:
    """What the session of a drill notes.

    Attributes:
        uncompared: Patterns of names that the script does not have compared.
        is_deterministic: Whether torch was told to use deterministic kernels only.
        outputs: Digest of the output of each module in the traced step, in the order of the calls; before
            them, of what each tracked module holds, named with `BEFORE_STEP`.
        kernels: What torch says of kernels without a deterministic form that were used in the traced step.
        epoch_steps: Steps of the first epoch, None while it is not over.
    """

    uncompared: tuple[str, ...] = ()
    is_deterministic: bool = False
    outputs: tuple[tuple[str, str], ...] = ()
    kernels: tuple[str, ...] = ()
    epoch_steps: int | None = None


def to_variable(rehearsal: Rehearsal) -> str:
    """Return the text of the environment variable."""
    return codec.to_json(rehearsal, _FORMAT).decode()


def from_environ(environ: Mapping[str, str]) -> Rehearsal | None:
    """Return what is asked, None outside of a drill.

    Raises:
        UserError: It cannot be read.
    """
    text = environ.get(VARIABLE)
    if not text:
        return None
    try:
        return codec.from_json(text.encode(), Rehearsal, _FORMAT, source=VARIABLE)
    except CorruptError as error:
        raise UserError(
            f"{VARIABLE} cannot be read: {error}", hint="only `trainerd drill` sets it"
        ) from error


def notes_path(folder: Path | str) -> Path:
    """Return the file of the notes."""
    return Path(folder) / "notes.json"


def write_notes(folder: Path | str, notes: RehearsalNotes) -> None:
    """Write the notes durably, in place of those before."""
    write_file(notes_path(folder), codec.to_json(notes, _NOTES_FORMAT))


def read_notes(folder: Path | str) -> RehearsalNotes:
    """Read the notes; none are empty ones.

    Raises:
        CorruptError: They cannot be read.
    """
    path = notes_path(folder)
    try:
        data = read_file(path, bytes_max=_NOTES_BYTES_MAX)
    except FileNotFoundError:
        return RehearsalNotes()
    return codec.from_json(data, RehearsalNotes, _NOTES_FORMAT, source=path)


def note_kill(folder: Path | str, attempt: int) -> None:
    """Note that a rank of an attempt is about to kill itself."""
    with (Path(folder) / KILLED_NAME).open("a") as file:
        file.write(f"{attempt}\n")


def was_killed(folder: Path | str, attempt: int) -> bool:
    """Tell whether a rank of an attempt has killed itself, as the drill asked for."""
    try:
        noted = (Path(folder) / KILLED_NAME).read_text().split()
    except FileNotFoundError:
        return False
    return str(attempt) in noted
