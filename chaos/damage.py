"""Damages checkpoint files in every way that disks and people do, and shows that training would go on.

`python -m chaos.damage` prints a table: what was done, which checkpoint is resumed from, and where the
damaged one is.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.power_cut.small_run import SmallRun, tensor_file, tree_file
from chaos.second_reader import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DAMAGES", "Damage", "damage_and_recover", "main"]

STEPS: Final = (1, 2, 3)
_FILES: Final = ("manifest.json", "rank-00000.safetensors", "rank-00000.json")


@dataclass(frozen=True)
class Damage:
    """One way to damage the checkpoints of steps 1, 2 and 3.

    Attributes:
        name: What is done.
        do: Does it to a checkpoints folder.
        resumes_from: The step that is resumed from afterwards; None if none is left.
        quarantined: The steps that are in quarantine afterwards.
    """

    name: str
    do: Callable[[Path], None]
    resumes_from: int | None
    quarantined: tuple[int, ...]


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}"


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x04
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _swap(one: Path, other: Path) -> None:
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def _stale_staging(folder: Path) -> None:
    shutil.copytree(_path(folder, 3), folder / ".staging-step-000000004-99999-0")
    half = folder / ".staging-step-000000004-99999-1"
    half.mkdir()
    (half / "rank-00000.safetensors").write_bytes(b"half")
    shutil.copytree(_path(folder, 1), folder / ".pruned-step-000000000-99999-2")
    (folder / ".fork.json.tmp-99999-0").write_bytes(b"{")


def _empty_folder(folder: Path) -> None:
    for path in _path(folder, 3).iterdir():
        path.unlink()


def _everything(folder: Path) -> None:
    for step in STEPS:
        _flip(_path(folder, step) / "rank-00000.safetensors")


def _to_file(name: str, spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: spoil(_path(folder, 3) / name)


def _swapped(name: str) -> Callable[[Path], None]:
    return lambda folder: _swap(_path(folder, 3) / name, _path(folder, 2) / name)


def _damages() -> Iterator[Damage]:
    ways = {"truncated": _truncate, "one bit flipped": _flip, "zero length": _empty, "all zeros": _zero}
    for name in _FILES:
        for way, spoil in ways.items():
            yield Damage(f"{name} {way}", _to_file(name, spoil), 2, (3,))
        yield Damage(f"{name} missing", _to_file(name, Path.unlink), 2, (3,))
        yield Damage(f"{name} swapped between steps 2 and 3", _swapped(name), 1, (2, 3))
    yield Damage("folder of step 3 emptied", _empty_folder, 2, (3,))
    yield Damage("folder of step 3 missing", lambda folder: shutil.rmtree(_path(folder, 3)), 2, ())
    yield Damage("stale staging and half-deleted folders", _stale_staging, 3, ())
    yield Damage("every checkpoint damaged", _everything, None, STEPS)


DAMAGES: Final = tuple(_damages())


def damage_and_recover(damage: Damage) -> str | None:
    """Make three checkpoints, damage them, recover.

    Return what is wrong with the result, None if nothing is.
    """
    with tempfile.TemporaryDirectory(prefix="trainerd-damage-") as scratch:
        run = SmallRun(Path(scratch) / "run")
        with run.store.lock():
            run.open()
            for step in STEPS:
                run.save(step)
            run.close()
        damage.do(run.store.directory)
        run = SmallRun(Path(scratch) / "run")  # as a new process would have it
        with run.store.lock():
            run.store.sweep()
            found = run.store.newest_verified()
            resumes_from = found.step if found is not None else None
            if resumes_from != damage.resumes_from:
                return f"resumes from {resumes_from}, not from {damage.resumes_from}"
            aside = tuple(int(one.name[5:]) for one in run.store.quarantined() if one.reason)
            if aside != damage.quarantined:
                return f"in quarantine with a reason: {aside}, not {damage.quarantined}"
            if found is not None:
                read(found.path)  # a reader of its own finds it whole too
                files = [(found.path / name).read_bytes() for name in _FILES[1:]]
                if files != [tensor_file(found.step), tree_file(found.step)]:
                    return f"step {found.step} holds something else"
            run.open()
            saved = run.save(4)
            if run.store.newest_verified() != saved:
                return "the next save is not found"
            run.close()
            hidden = [
                path.name
                for path in run.store.directory.iterdir()
                if path.name.startswith((".staging", ".pruned"))
            ]
            return f"left over: {hidden}" if hidden else None


def main() -> int:
    """Do them all; 0 if every one is recovered from."""
    print(f"{'damage':<52} {'resumes from':>12}  {'quarantine':<12} result")
    wrong = 0
    for damage in DAMAGES:
        found = damage_and_recover(damage)
        wrong += found is not None
        resumes_from = f"step {damage.resumes_from}" if damage.resumes_from is not None else "nothing"
        aside = ", ".join(map(str, damage.quarantined)) or "none"
        print(f"{damage.name:<52} {resumes_from:>12}  {aside:<12} {found or 'recovered'}")
    print(f"{len(DAMAGES)} kinds of damage, {wrong} not recovered from")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
