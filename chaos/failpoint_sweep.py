"""Kills at every failpoint of every durable act, and shows that what is left is what the point promises.

The points are those of the code (`trainerd.contract.failpoints.REGISTRY`), not a list of ours: each act is
first run to see which points it passes and how often, then once for each point and hit with SIGKILL there,
then recovered. A point that no act passes is reported, and the sweep fails: a new durable act cannot be
forgotten.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.failpoint_acts import ACTS, ELSEWHERE, BrokenError
from chaos.waiting import HarnessError
from trainerd.contract import failpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Kill", "all_points", "kill_at", "main", "passed_points"]

_LIMIT_S: Final = 300.0
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True)
class Kill:
    """One run: killed at the `nth` hit of a point, and what is wrong with what came of it.

    The latter is None if nothing is.
    """

    act: str
    point: str
    nth: int
    complaint: str | None
    is_struck: bool = True


def all_points() -> dict[str, str]:
    """Return every failpoint of the package, with what a crash there leaves.

    Only modules that can declare one are imported: those of the integrations need a framework that may be
    absent, or that fails to import.
    """
    import trainerd

    for module in pkgutil.walk_packages(trainerd.__path__, "trainerd."):
        found = find_spec(module.name)
        assert found is not None
        assert found.origin is not None
        if "failpoints" in Path(found.origin).read_text("utf-8"):
            import_module(module.name)
    return {name: point.leaves for name, point in failpoints.REGISTRY.items()}


def passed_points(act: str, names: Iterable[str]) -> dict[str, int]:
    """Run an act undisturbed; return which of these points it passes, and how often each.

    Raises:
        HarnessError: The act itself fails.
    """
    with tempfile.TemporaryDirectory(prefix="trainerd-points-") as scratch:
        counts, folder = Path(scratch) / "counts", Path(scratch) / "act"
        folder.mkdir()
        ended = _perform(
            act, folder, {"TRAINERD_CHAOS_COUNTS": str(counts), "TRAINERD_CHAOS_POINTS": " ".join(names)}
        )
        if ended.returncode:
            raise HarnessError(f"{act}: exit {ended.returncode}\n{ended.stderr.decode()}")
        ACTS[act].recover(folder)
        passed: dict[str, int] = json.loads(counts.read_text())
        return passed


def tried_kills(act: str, names: Iterable[str], *, most: int | None = None) -> list[Kill]:
    """Kill an act at each of these points: at the first hit, then at the second, and so on.

    A point is done with when its next hit is not met, or after `most` kills.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [kill for found in pool.map(lambda name: _tried(act, name, most), names) for kill in found]


def _tried(act: str, name: str, most: int | None) -> list[Kill]:
    found: list[Kill] = []
    while len(found) != most and (kill := kill_at(act, name, len(found) + 1)).is_struck:
        found.append(kill)
    return found


def kill_at(act: str, point: str, nth: int) -> Kill:
    """Run an act, kill it at one point, recover, and say what is wrong with the result."""
    with tempfile.TemporaryDirectory(prefix="trainerd-points-") as scratch:
        folder = Path(scratch) / "act"
        folder.mkdir()
        ended = _perform(act, folder, {failpoints.VARIABLE: f"{point}=kill@{nth}"})
        if not ACTS[act].is_struck(ended.returncode, folder):
            said = ended.stderr.decode()[-400:]
            return Kill(act, point, nth, f"was not killed: exit {ended.returncode} {said}", is_struck=False)
        try:
            ACTS[act].recover(folder)
        except BrokenError as error:
            return Kill(act, point, nth, str(error))
        except Exception as error:  # noqa: BLE001 - whatever recovery stumbles over is a finding
            return Kill(act, point, nth, f"recovery failed: {type(error).__name__}: {error}")
        return Kill(act, point, nth, None)


def _perform(act: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRAINERD_")}
    return subprocess.run(
        [sys.executable, "-m", "chaos.failpoint_acts", act, str(folder)],
        env={**clean, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        timeout=_LIMIT_S,
        check=False,
    )


def _hits(count: int, *, every: bool) -> list[int]:
    """Return which hits to strike: all, or the first and the last."""
    return list(range(1, count + 1)) if every else sorted({1, count})


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep; 0 if every point was struck and nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m chaos.failpoint_sweep", description=__doc__)
    parser.add_argument("--act", action="append", choices=ACTS, help="only this one; may be repeated")
    parser.add_argument("--point", help="only this point")
    parser.add_argument(
        "--every-hit", action="store_true", help="every hit, not the first and the last alone"
    )
    parser.add_argument(
        "--once", action="store_true", help="each point once, by the first act that passes it"
    )
    options = parser.parse_args(arguments)
    began_s = time.monotonic()
    # So that a shim whose parent was killed is ours to wait for.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    points = all_points()
    wanted = [name for name in points if options.point in {None, name}]
    kills, met = _kills(options.act or list(ACTS), wanted, every=options.every_hit, once=options.once)
    _show(kills)
    forgotten = [name for name in points if name not in met and name not in ELSEWHERE]
    if not options.act and not options.point:
        for name in forgotten:
            print(f"FORGOTTEN: {name}: no act passes it; it leaves {points[name]}")
        for name, where in ELSEWHERE.items():
            print(f"elsewhere: {name}: {where}")
    else:
        forgotten = []
    lost = sum(one.complaint is not None for one in kills)
    print(
        f"{len(kills)} kills at {len({one.point for one in kills})} of {len(points)} points in "
        f"{time.monotonic() - began_s:.0f} s: {lost} lost anything, {len(forgotten)} points forgotten"
    )
    return 1 if lost or forgotten else 0


def _kills(
    acts: Sequence[str], wanted: Sequence[str], *, every: bool, once: bool
) -> tuple[list[Kill], set[str]]:
    """Return every kill, and the points that were met by any act."""
    todo: list[tuple[str, str, int]] = []
    met: set[str] = set()
    # The dear ones come last, as the others spare them most of their points.
    for act in sorted(
        (name for name in acts if not ACTS[name].is_tried), key=lambda name: ACTS[name].is_dear
    ):
        passed = passed_points(act, wanted)
        for name, count in passed.items():
            if name not in met or not (ACTS[act].is_dear or once):
                todo += [(act, name, nth) for nth in _hits(1 if once else count, every=every)]
        met |= passed.keys()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kills = list(pool.map(lambda one: kill_at(*one), todo))
    for act in (name for name in acts if ACTS[name].is_tried):
        rest = [
            name
            for name in wanted
            if name not in met | ELSEWHERE.keys() or (name.startswith("record.") and not once)
        ]
        kills += tried_kills(act, rest, most=1 if once else None)
    return kills, met | {kill.point for kill in kills}


def _show(kills: list[Kill]) -> None:
    print(f"{'act':<12} {'point':<30} {'hits':>5}  result")
    for act, point in dict.fromkeys((one.act, one.point) for one in kills):
        mine = [one for one in kills if (one.act, one.point) == (act, point)]
        wrong = [one for one in mine if one.complaint is not None]
        result = f"hit {wrong[0].nth}: {wrong[0].complaint}" if wrong else "recovered"
        print(f"{act:<12} {point:<30} {len(mine):>5}  {result}")


if __name__ == "__main__":
    sys.exit(main())
