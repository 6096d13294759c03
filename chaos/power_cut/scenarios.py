"""What is recorded: a save, a prune, a journal commit and their kin, each with what must hold after a cut.

`python -m chaos.power_cut.scenarios NAME FOLDER` is the program that is watched: it gets ready, says `begin`,
acts, and says what is done as soon as trainerd reports it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

from chaos.power_cut.recorder import BEGIN, MARKS_SUFFIX
from chaos.power_cut.small_journal import SmallJournal
from chaos.power_cut.small_run import TENSOR_FILE_BYTES, SmallRun
from trainerd.checkpoint.removal import Remover, rename_for_removal
from trainerd.contract.durable import write_file

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCENARIOS", "Scenario"]

_AUTO_CHECKPOINT_FRAMES: Final = 1000
"""SQLite carries the write-ahead log into the database when it has so many frames."""


class Act:
    """What a scenario acts with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._marks = os.open(folder.with_name(folder.name + MARKS_SUFFIX), os.O_WRONLY | os.O_APPEND)

    def say(self, mark: str) -> None:
        """Report something."""
        os.write(self._marks, mark.encode() + b"\n")

    def save(self, run: SmallRun, step: int) -> None:
        """Save, and say so when it is reported as done."""
        run.save(step, on_committed=lambda: self.say(f"saved {step}"))


@dataclass(frozen=True)
class Scenario:
    """One program, and what must be found after a cut.

    Attributes:
        act: The program.
        kind: Which recovery it needs: `run`, `journal` or `record`.
        before: Newest step, or last decision or version, before it began; 0 for none.
        after: The same once all is done.
        kept: Steps that must be there, whole, whenever the cut comes.
        is_long: Too many states for every day.
        is_bad: A protocol known to be wrong, as a control: it must be caught.
        size_bytes: Size of a checkpoint's tensors.
    """

    act: Callable[[Act], None]
    kind: str
    before: int
    after: int
    kept: tuple[int, ...] = ()
    is_long: bool = False
    is_bad: bool = False
    size_bytes: int = TENSOR_FILE_BYTES


def _run(act: Act, steps: tuple[int, ...], then: Callable[[SmallRun], None]) -> None:
    run = SmallRun(act.folder)
    with run.store.lock():
        if not steps:
            act.say(BEGIN)
        run.open()
        for step in steps:
            run.save(step)
        if steps:
            act.say(BEGIN)
        then(run)


def save(act: Act) -> None:
    """The fourth checkpoint of a run."""
    _run(act, (1, 2, 3), lambda run: act.save(run, 4))


def first_save(act: Act) -> None:
    """The first checkpoint, in a folder that holds nothing."""
    _run(act, (), lambda run: act.save(run, 1))


def prune(act: Act) -> None:
    """Two of four checkpoints go."""
    _run(act, (1, 2, 3, 4), lambda run: run.prune())


def life(act: Act) -> None:
    """Save, prune, save, prune: nothing between is made durable for the sake of this test."""

    def then(run: SmallRun) -> None:
        act.save(run, 3)
        run.prune()
        act.save(run, 4)
        run.prune()

    _run(act, (1, 2), then)


def new_journal(act: Act) -> None:
    """A journal is made, and two decisions go into it."""
    act.say(BEGIN)
    journal = SmallJournal(act.folder)
    for number in (1, 2):
        journal.decide(number)
        act.say(f"decided {number}")


def journal(act: Act) -> None:
    """A journal that was closed in good order is opened again and takes two decisions."""
    journal = SmallJournal(act.folder)
    journal.decide(1)
    journal.close()
    act.say(BEGIN)
    journal = SmallJournal(act.folder)
    for number in (2, 3):
        journal.decide(number)
        act.say(f"decided {number}")


def journal_checkpoint(act: Act) -> None:
    """The write-ahead log is full: SQLite carries it into the database and begins it again."""
    journal = SmallJournal(act.folder)
    number = 0
    wal = act.folder / "journal.sqlite3-wal"
    while number < 3 or wal.stat().st_size < (_AUTO_CHECKPOINT_FRAMES - 9) * 4120:
        number += 1
        journal.decide(number)
    act.say(BEGIN)
    act.say(f"decided {number}")
    for _ in range(4):
        number += 1
        journal.decide(number)
        act.say(f"decided {number}")


def record(act: Act) -> None:
    """A small file, such as an exit record or a spec, is replaced twice."""
    path = act.folder / "exit.json"
    for version in (1, 2, 3):
        write_file(path, f"version {version} ".encode() * 60)
        act.say(BEGIN if version == 1 else f"written {version}")


def bad_save_without_sync(act: Act) -> None:
    """Known to be wrong: written beside, renamed, never synced."""

    def then(_run: SmallRun) -> None:
        mock.patch("os.fsync", return_value=None).start()
        act.save(_run, 4)

    _run(act, (1, 2, 3), then)


def bad_save_without_folder_sync(act: Act) -> None:
    """Known to be wrong: every file is synced, no folder is."""
    real = os.fsync

    def then(run: SmallRun) -> None:
        def files_only(descriptor: int) -> None:
            if not Path(f"/proc/self/fd/{descriptor}").is_dir():
                real(descriptor)

        mock.patch("os.fsync", files_only).start()
        act.save(run, 4)

    _run(act, (1, 2, 3), then)


def bad_prune_first(act: Act) -> None:
    """Known to be wrong: the old ones go before the new one is there."""

    def then(run: SmallRun) -> None:
        for checkpoint in run.store.checkpoints():
            path = rename_for_removal(checkpoint.path)
            assert path is not None
            Remover().remove([path], in_background=False)
        act.save(run, 4)

    _run(act, (1, 2, 3), then)


def bad_prune_in_place(act: Act) -> None:
    """Known to be wrong: a checkpoint is deleted under its own name."""

    def then(run: SmallRun) -> None:
        mock.patch("trainerd.checkpoint.housekeeping.rename_for_removal", lambda folder: folder).start()
        run.prune()

    _run(act, (1, 2, 3, 4), then)


def bad_record_in_place(act: Act) -> None:
    """Known to be wrong: a record is overwritten where it lies."""
    path = act.folder / "exit.json"
    write_file(path, b"version 1 " * 60)
    act.say(BEGIN)
    with path.open("wb", buffering=0) as file:
        file.write(b"version 2 " * 60)
        os.fsync(file.fileno())
    act.say("written 2")


SCENARIOS: Final[dict[str, Scenario]] = {
    "save": Scenario(save, "run", 3, 4, (1, 2, 3)),
    "first-save": Scenario(first_save, "run", 0, 1),
    "prune": Scenario(prune, "run", 4, 4, (3, 4)),
    "life": Scenario(life, "run", 2, 4, (), is_long=True),
    "new-journal": Scenario(new_journal, "journal", 0, 2),
    "journal": Scenario(journal, "journal", 1, 3),
    "journal-checkpoint": Scenario(journal_checkpoint, "journal", 0, 0, is_long=True),
    "record": Scenario(record, "record", 1, 3),
    "no-sync": Scenario(bad_save_without_sync, "run", 3, 4, (1, 2, 3), is_bad=True),
    "no-folder-sync": Scenario(bad_save_without_folder_sync, "run", 3, 4, (1, 2, 3), is_bad=True),
    "prune-first": Scenario(bad_prune_first, "run", 3, 4, is_bad=True),
    "prune-in-place": Scenario(bad_prune_in_place, "run", 4, 4, (3, 4), is_bad=True),
    "record-in-place": Scenario(bad_record_in_place, "record", 1, 2, is_bad=True),
}


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]].act(Act(Path(sys.argv[2])))
