"""What trainerd finds after a cut, and whether that is what it promised.

The files are compared with what the step should hold by `chaos.second_reader`, which shares nothing with our
own reader.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from chaos.power_cut.small_journal import SmallJournal
from chaos.power_cut.small_run import SmallRun, tensor_file, tree_file
from chaos.second_reader import UnsoundError, read
from trainerd.checkpoint.checkpoint_names import CheckpointName, WriterName
from trainerd.contract.durable import sweep_temporary
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.power_cut.scenarios import Scenario

__all__ = ["complaint"]


class _BrokenError(Exception):
    """The promise does not hold."""


def complaint(
    folder: Path, scenario: Scenario, done: tuple[str, ...], *, goes_on: bool, may_quarantine: bool = False
) -> str | None:
    """Recover what is in `folder` as trainerd does; return what is wrong with the result, None if nothing is.

    Args:
        folder: As the cut left it; changed by this.
        scenario: What was being done.
        done: What had been reported as done.
        goes_on: Whether to go on from there too: to save, prune or decide once more.
        may_quarantine: Whether something was damaged on purpose, and may lie in quarantine.
    """
    newest_done = max((int(one.split()[-1]) for one in done if one[-1].isdigit()), default=scenario.before)
    try:
        if scenario.kind == "run":
            _recover_run(folder, scenario, at_least=max(newest_done, scenario.before), goes_on=goes_on)
            if not may_quarantine:
                _check_nothing_aside(folder)
        elif scenario.kind == "journal":
            _recover_journal(folder, at_least=newest_done, goes_on=goes_on)
        else:
            _recover_record(folder, scenario, at_least=newest_done)
    except _BrokenError as error:
        return str(error)
    except (TrainerdError, OSError, ValueError, KeyError, struct.error) as error:
        first_line = str(error).partition("\n")[0].replace(f"{folder}/", "")
        return f"recovery failed: {type(error).__name__}: {first_line}"
    return None


def _recover_run(folder: Path, scenario: Scenario, *, at_least: int, goes_on: bool) -> None:
    run = SmallRun(folder, size_bytes=scenario.size_bytes)
    with run.store.lock():
        run.store.take_over()
        run.store.sweep()
        _check_all_whole(run, scenario.size_bytes)
        found = run.store.newest_verified()
        step = found.step if found is not None else 0
        if not at_least <= step <= max(scenario.after, at_least):
            raise _BrokenError(f"resumes from step {step}, not from {at_least} or the one after it")
        _check_kept(run, scenario.kept)
        if found is not None:
            _check_history(folder, found.manifest.history_bytes)
        if goes_on:
            _check_goes_on(run, scenario.after + 1)


def _check_all_whole(run: SmallRun, size_bytes: int) -> None:
    """Whatever has a checkpoint's name is complete, and holds what that step held."""
    folders = list(run.store.directory.iterdir())
    for path in folders:
        if path.is_symlink() or CheckpointName.parse(path.name) is None:
            continue
        try:
            read(path)
        except (UnsoundError, OSError, ValueError, KeyError, struct.error) as error:
            raise _BrokenError(f"{path.name} has its final name and is not whole: {error}") from error
        step = int(path.name[5:])
        files = (path / "rank-00000.safetensors").read_bytes(), (path / "rank-00000.json").read_bytes()
        if files != (tensor_file(step, size_bytes), tree_file(step)):
            raise _BrokenError(f"{path.name} holds something else than step {step}")
    ours_to_stay = {".writer.lock", ".reserve"}
    left = [path for path in folders if path.name[0] == "." and path.name not in ours_to_stay]
    writers = [path for path in left if WriterName.parse(path.name)]
    left = [path for path in left if path not in writers[:1]]
    left += [path for writer in writers for path in writer.iterdir() if path.name != "owner"]
    if left:
        raise _BrokenError(f"left over after the sweep: {', '.join([path.name for path in left])}")


def _check_kept(run: SmallRun, kept: tuple[int, ...]) -> None:
    there = {checkpoint.step for checkpoint in run.store.checkpoints()}
    if missing := set(kept) - there:
        raise _BrokenError(f"steps {sorted(missing)} were to be kept and are gone")


def _check_nothing_aside(folder: Path) -> None:
    if aside := SmallRun(folder).store.quarantined():
        raise _BrokenError(f"{aside[0].name} had to go into quarantine: {aside[0].reason}")


def _check_history(folder: Path, history_bytes: int) -> None:
    """The history reaches as far as the checkpoint says, and has a line for each step up to it."""
    path = folder / "metrics.jsonl"
    history = path.read_bytes() if path.exists() else b""
    if len(history) < history_bytes or b"\0" in history[:history_bytes]:
        raise _BrokenError(f"the history has {len(history)} bytes; the checkpoint needs {history_bytes}")


def _check_goes_on(run: SmallRun, step: int) -> None:
    """What the cut left behind does not stand in the way of the next save and prune."""
    run.open()
    try:
        saved = run.save(step)
        run.prune()
        if run.store.newest_verified() != saved:
            raise _BrokenError("the next save is not found")
    finally:
        run.close()


def _recover_journal(folder: Path, *, at_least: int, goes_on: bool) -> None:
    journal = SmallJournal(folder)
    try:
        found = journal.decisions()
        last = found[-1] if found else 0
        if last < at_least:
            raise _BrokenError(f"decision {at_least} was acknowledged, the journal ends with {last}")
        if not goes_on:
            return
        journal.decide(last + 1)
        if journal.decisions()[-1] != last + 1:
            raise _BrokenError("the next decision is not found")
    finally:
        journal.close()


def _recover_record(folder: Path, scenario: Scenario, *, at_least: int) -> None:
    sweep_temporary(folder)
    contents = {f"version {number} ".encode() * 60: number for number in range(1, scenario.after + 1)}
    path = folder / "exit.json"
    found = contents.get(path.read_bytes()) if path.exists() else 0
    if found is None or found < at_least:
        raise _BrokenError(f"version {at_least} was reported, found {found or path.read_bytes()[:30]!r}")
    if left := [one.name for one in folder.iterdir() if one != path]:
        raise _BrokenError(f"left over: {left}")
