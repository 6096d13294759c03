"""A real save and prune in which the N-th system call of each kind fails or kills, for every N.

`python -m chaos.syscall_faults` has strace give EIO, ENOSPC or SIGKILL at each call that a save, its
read-back and a prune make on the run's folder, one run a fault. After an error the same process must be able
to save again; after a kill the next one must. What was reported as saved must be there, whole; what was there
before must be there still.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.power_cut.recorder import BEGIN, MARKS_SUFFIX
from chaos.power_cut.recovery import complaint
from chaos.power_cut.scenarios import Scenario
from chaos.power_cut.small_run import SmallRun
from chaos.waiting import HarnessError
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["CALLS", "FAULTS", "Place", "inject", "main", "places"]

CALLS: Final = (
    *("write", "pwrite64", "ftruncate", "fsync", "rename", "close"),
    *("openat", "mkdir", "unlinkat", "rmdir", "symlink"),
)
FAULTS: Final = ("EIO", "ENOSPC", "KILL")

_LIMIT_S: Final = 60.0
_RUNS_MAX: Final = 3
_OTHER_WAY: Final = "the fault hit something else: the run took another way than the recorded one"
_CALL: Final = re.compile(r"\d+ +(\w+)\((.*)")
_SCENARIO: Final = Scenario(lambda _act: None, "run", 3, 5)


@dataclass(frozen=True)
class Place:
    """One system call of the recorded run.

    It is the `nth` of its kind in the whole process; the text says what it was about.
    """

    call: str
    nth: int
    text: str


def act(folder: Path) -> None:
    """Open the fourth attempt of a run, save twice and prune, reporting what succeeds and what fails."""
    marks = os.open(folder.with_name(folder.name + MARKS_SUFFIX), os.O_WRONLY | os.O_APPEND)

    def say(text: str) -> None:
        os.write(marks, text.encode() + b"\n")

    run = SmallRun(folder)
    with run.store.lock():
        run.open()
        for step in (1, 2, 3):
            run.save(step)
        say(BEGIN)
        # One fault, and then none: the second save and prune must succeed whatever became of the first.
        for step in (4, 5):
            with contextlib.suppress(OSError, TrainerdError):
                run.save(step)
                say(f"saved {step}")
            with contextlib.suppress(OSError, TrainerdError):
                run.prune()
                say("pruned")


def places(calls: Iterable[str] = CALLS) -> list[Place]:
    """Return every call of these kinds that the first save and prune make on the run's folder."""
    wanted = frozenset(calls)
    with _run([]) as done:
        found: list[Place] = []
        counts: Counter[str] = Counter()
        has_begun = False
        for line in done.log.read_text().splitlines():
            match = _CALL.match(line)
            if match is None:
                continue
            counts[match[1]] += 1
            if match[1] == "write" and MARKS_SUFFIX in line:
                has_begun |= f'"{BEGIN}\\n"' in line
                if '"pruned\\n"' in line:
                    break
            elif has_begun and match[1] in wanted and f"{done.folder}/" in line:
                text = match[2].replace(f"{done.folder}/", "").split(" = ")[0][:90]
                found.append(Place(match[1], counts[match[1]], text))
        return found


def inject(place: Place, fault: str) -> str | None:
    """Run with one fault; return what is wrong with what came of it, None if nothing is.

    What is removed is removed by a thread, so a run may take another way than the recorded one. The fault
    then hits nothing that was asked about, which says nothing: such a run is repeated.
    """
    for _ in range(_RUNS_MAX):
        wrong = _inject_once(place, fault)
        if wrong != _OTHER_WAY:
            break
    return wrong


def _inject_once(place: Place, fault: str) -> str | None:
    action = "signal=KILL" if fault == "KILL" else f"error={fault}"
    with _run(["-e", f"inject={place.call}:{action}:when={place.nth}"]) as done:
        said = tuple(done.folder.with_name(done.folder.name + MARKS_SUFFIX).read_text().splitlines())
        log = done.log.read_text()
        if fault == "KILL":
            if done.returncode != -signal.SIGKILL:
                return f"was not killed: exit {done.returncode}"
        elif not any(line.endswith("(INJECTED)") and f"{done.folder}/" in line for line in log.splitlines()):
            return _OTHER_WAY
        elif done.returncode:
            return f"exit {done.returncode}: {done.output.strip().splitlines()[-1:]}"
        elif said[-2:] != ("saved 5", "pruned"):
            return f"could not save and prune after one {fault}: {', '.join(said)}"
        return complaint(
            done.folder, _SCENARIO, tuple(one for one in said if one.startswith("saved")), goes_on=True
        )


@dataclass(frozen=True)
class _Done:
    folder: Path
    log: Path
    returncode: int
    output: str


@contextlib.contextmanager
def _run(options: Sequence[str]) -> Iterator[_Done]:
    with tempfile.TemporaryDirectory(prefix="trainerd-faults-") as scratch:
        folder, log = Path(scratch) / "run", Path(scratch) / "log"
        folder.mkdir()
        folder.with_name(folder.name + MARKS_SUFFIX).touch()
        watch = ["strace", "-f", "-y", "-s", "64", "-o", str(log), "-e", f"trace={','.join(CALLS)}", *options]
        command = [sys.executable, "-m", "chaos.syscall_faults", "--act", str(folder)]
        try:
            ended = subprocess.run([*watch, *command], capture_output=True, timeout=_LIMIT_S, check=False)
        except FileNotFoundError:
            raise HarnessError("strace is missing: apt-get install strace") from None
        yield _Done(folder, log, ended.returncode, ended.stderr.decode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every fault at every place; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m chaos.syscall_faults", description=__doc__)
    parser.add_argument("--call", action="append", choices=CALLS, help="only this kind; may be repeated")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this fault; may be repeated")
    parser.add_argument("--act", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.act is not None:
        act(options.act)
        return 0
    if shutil.which("strace") is None:
        print("strace is missing: apt-get install strace", file=sys.stderr)
        return 2
    began_s = time.monotonic()
    todo = [(place, fault) for place in places(options.call or CALLS) for fault in options.fault or FAULTS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda one: inject(*one), todo))
    print(f"{'call':<10} {'places':>6} {'faults':>6} {'lost':>5}")
    for call in dict.fromkeys(place.call for place, _ in todo):
        mine = [wrong for (place, _), wrong in zip(todo, found, strict=True) if place.call == call]
        count = len({place.nth for place, _ in todo if place.call == call})
        print(f"{call:<10} {count:>6} {len(mine):>6} {sum(wrong is not None for wrong in mine):>5}")
    for (place, fault), wrong in zip(todo, found, strict=True):
        if wrong is not None:
            print(f"{fault} at {place.call} {place.nth} ({place.text}): {wrong}")
    lost = sum(wrong is not None for wrong in found)
    print(f"{len(todo)} runs in {time.monotonic() - began_s:.0f} s, one fault each: {lost} lost anything")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
