"""The durable acts of trainerd, each as a small program that can be killed and recovered from.

`python -m chaos.failpoint_acts ACT FOLDER` performs one. With `TRAINERD_CHAOS_COUNTS` it also writes down
which failpoints it passed, and how often.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.power_cut.recovery import complaint
from chaos.power_cut.scenarios import Scenario
from chaos.power_cut.small_journal import SmallJournal
from chaos.power_cut.small_run import SmallRun
from trainerd.checkpoint.space import release_reserve
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints
from trainerd.contract.paths import RunPaths, StatePaths
from trainerd.contract.process import identify, is_alive
from trainerd.contract.records import LaunchRecord
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.probe import ProbedEnded, ProbedLost, ProbedNotStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.paths import AttemptPaths
    from trainerd.supervisor.attempt.probe import ProbeResult

__all__ = ["ACTS", "ELSEWHERE", "Act", "BrokenError"]

_COUNTS: Final = "TRAINERD_CHAOS_COUNTS"
_NAMES: Final = "TRAINERD_CHAOS_POINTS"
_NEVER: Final = 1_000_000_000
_LIMIT_S: Final = 30.0
_TRAINING_LIMIT_S: Final = 300.0
_TINY: Final = Path(__file__).resolve().parents[1] / "jobs" / "examples" / "tiny" / "train.py"

ELSEWHERE: Final = {
    "ranks.announced": "needs several ranks that talk: tests/integration/ranks/test_ranks_together.py "
    "kills there",
    "stall.shown": "needs a supervisor and a stalled job: "
    "tests/integration/supervisor/test_supervisor_stalls.py",
    "stall.recorded": "likewise",
    "standby.cgroup-recorded": "needs a cgroup: "
    "tests/integration/shim/test_shim_standby_memory.py kills there",
    "run.purged": "fails there in tests/integration/supervisor/test_supervisor_spec_verbs.py",
    "aside.given-back": "tests/unit/checkpoint/test_taking_back.py ends a taking back there",
    "memory.kept": "tests/integration/training/test_kill_with_memory.py kills there",
    "memory.returned": "likewise",
    "memory.agreed": "needs several ranks: tests/integration/ranks/test_ranks_with_copies.py kills there",
    "memory.ready": "likewise",
    "run.aside": "tests/unit/checkpoint/test_run_entries_aside.py ends a move there",
    "run.departing": "likewise, at each entry",
    "run.given-back": "tests/unit/checkpoint/test_run_aside.py ends a giving back there",
}
"""Failpoints that no act here passes, and where they are struck."""


class BrokenError(Exception):
    """What a kill left is not what was promised."""


def _is_killed(returncode: int, _folder: Path) -> bool:
    return returncode == -signal.SIGKILL


@dataclass(frozen=True)
class Act:
    """One act.

    Attributes:
        perform: Does it in a folder, in a process of its own.
        recover: Raises BrokenError if what is there is not what was promised.
        is_struck: Says from the exit code and the folder whether the kill came.
        is_tried: Whether its points lie in another process, which cannot be asked: each is tried until it is
            not met.
        is_dear: Whether it takes long: it is killed only at points that no other act passes.
    """

    perform: Callable[[Path], None]
    recover: Callable[[Path], None]
    is_struck: Callable[[int, Path], bool] = field(default=_is_killed)
    is_tried: bool = False
    is_dear: bool = False


# ------------------------------------------------------------------ the checkpoint store


def _keep_checkpoints(folder: Path) -> None:
    """All that a run does to its checkpoints: save, prune, links, pins, reserve, quarantine, fork."""
    run = SmallRun(folder)
    with run.store.lock():
        run.open()
        run.store.keep_reserve(4096)
        for step in (1, 2, 3, 4):
            run.save(step)
            _done(folder, step)
        run.prune()
        run.store.pin("3", "mine")
        run.store.unpin("3")
        damaged = run.save(5).path / "rank-00000.json"
        damaged.write_bytes(b"damaged")
        run.store.newest_verified()
        run.save(6)
        run.store.set_aside_after(run.store.find("4"), "a fork")
        release_reserve(run.store.directory)


def _recover_checkpoints(folder: Path) -> None:
    done = tuple(f"saved {step}" for step in _all_done(folder))
    run = SmallRun(folder)
    with (
        run.store.lock()
    ):  # the act damages step 5 itself: the attempt after the kill may be the first to find out
        run.store.sweep()
        run.store.newest_verified()
    scenario = Scenario(lambda _act: None, "run", 0, 9)
    _complain(complaint(folder, scenario, done, goes_on=True, may_quarantine=True))


# ------------------------------------------------------------------ the journal, a spec


def _decide(folder: Path) -> None:
    journal = SmallJournal(folder)
    for number in (1, 2, 3):
        journal.decide(number)
        _done(folder, number)
    journal.close()


def _recover_journal(folder: Path) -> None:
    done = tuple(f"decided {number}" for number in _all_done(folder))
    _complain(complaint(folder, Scenario(lambda _act: None, "journal", 0, 3), done, goes_on=True))


def _place_spec(folder: Path) -> None:
    from trainerd.supervisor.specs.placement import place_spec

    (folder / "jobs").mkdir(exist_ok=True)
    for version in (1, 2):
        source = folder / f"source-{version}" / "ant.yaml"
        source.parent.mkdir()
        source.write_text(f"name: ant\ncommand: [echo, version-{version}]\n")
        place_spec(source, folder / "jobs", replace=True)
        _done(folder, version)


def _recover_spec(folder: Path) -> None:
    from trainerd.supervisor.specs.placement import place_spec

    spec = folder / "jobs" / "ant.yaml"
    versions = _all_done(folder)
    text = spec.read_text() if spec.exists() else ""
    found = next((number for number in (1, 2) if f"version-{number}" in text), 0)
    if found < max(versions, default=0) or (text and not text.endswith("]\n")):
        raise BrokenError(f"version {versions[-1:]} was placed, the spec reads {text!r}")
    source = folder / "source-3" / "ant.yaml"
    source.parent.mkdir()
    source.write_text("name: ant\ncommand: [echo, version-3]\n")
    place_spec(source, folder / "jobs", replace=True)
    if "version-3" not in spec.read_text():
        raise BrokenError("the next spec cannot be placed")


def _lift_and_remove(folder: Path) -> None:
    """Lift a hold of the supervisor, and remove a spec."""
    from trainerd.supervisor.operator_hold import lift_hold, put_on_hold
    from trainerd.supervisor.specs.remove import remove_specs

    put_on_hold(folder / "hold.json", now_wall_s=1.0)
    lift_hold(folder / "hold.json")
    _place_spec(folder)
    remove_specs(["ant"], folder / "jobs")


def _recover_verbs(folder: Path) -> None:
    from trainerd.supervisor.operator_hold import is_on_hold, lift_hold

    if (folder / "hold.json").exists():
        if not is_on_hold(folder / "hold.json"):
            raise BrokenError("a hold that is there does not hold")
        lift_hold(folder / "hold.json")
    if is_on_hold(folder / "hold.json"):
        raise BrokenError("the hold cannot be lifted")
    (folder / "jobs").mkdir(exist_ok=True)
    folder.with_name(folder.name + ".done").unlink(missing_ok=True)  # what was placed may be removed again
    _recover_spec(folder)


# ------------------------------------------------------------------ an attempt


def _attempt(folder: Path, number: int) -> tuple[AttemptPaths, LaunchRecord]:
    run = StatePaths(folder / "state").run("ant")
    script = "echo $$ >> started; sleep 0.2; echo done >> ended"
    record = LaunchRecord(
        job="ant",
        attempt=number,
        command=("sh", "-c", script),
        workdir=str(folder),
        env={"PATH": os.environ["PATH"]},
        nproc=1,
        grace_s=5.0,
        log_paths=(str(run.rank_log(0)),),
    )
    return run.attempt(number), record


def _watch(paths: AttemptPaths, launcher: ShimLauncher) -> ProbeResult:
    async def last() -> ProbeResult:
        state: ProbeResult | None = None
        async for found in launcher.watch(paths):
            state = found
        assert state is not None
        return state

    return asyncio.run(asyncio.wait_for(last(), _LIMIT_S))


def _launch(folder: Path) -> None:
    """Launch an attempt: this process is to be killed, and not the shim."""
    os.environ.pop(failpoints.VARIABLE, None)
    launcher = ShimLauncher()
    paths, record = _attempt(folder, 1)
    launcher.launch(paths, record)


def _launch_to_be_struck(folder: Path) -> None:
    """Launch an attempt: the shim is to be killed, and not this process."""
    failpoints.arm("")
    launcher = ShimLauncher()
    paths, record = _attempt(folder, 1)
    launcher.launch(paths, record)
    (pid,) = launcher.child_pids
    folder.with_name("shim-pid").write_text(str(pid))


def _void(folder: Path) -> None:
    """See to it that an attempt never starts."""
    ShimLauncher().void(_attempt(folder, 1)[0], "not needed")


def _recover_attempt(folder: Path) -> None:
    launcher = ShimLauncher()
    paths, _ = _attempt(folder, 1)
    if paths.root.exists():
        state = _watch(paths, launcher)
        if isinstance(state, ProbedLost):
            launcher.end_survivors(paths)
        elif not isinstance(state, ProbedEnded | ProbedNotStarted):
            raise BrokenError(f"the attempt is {state}")
        started = (folder / "started").read_text().split() if (folder / "started").exists() else []
        if isinstance(state, ProbedNotStarted) and started:
            raise BrokenError("it counts as never started, and its rank ran")
        for pid in started:
            identity = identify(int(pid))
            if identity is not None and is_alive(identity):
                raise BrokenError(f"rank {pid} survived")
    following, record = _attempt(folder, 3)
    launcher.launch(following, record)
    state = _watch(following, launcher)
    if not isinstance(state, ProbedEnded) or state.record.ranks[0].exit_code != 0:
        raise BrokenError(f"the next attempt is {state}")


def _is_shim_killed(_returncode: int, folder: Path) -> bool:
    """The shim's parent has left, so it is for the process that performs acts to wait for (a subreaper)."""
    _, status = os.waitpid(int(folder.with_name("shim-pid").read_text()), 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


# ------------------------------------------------------------------ training


def _train(folder: Path) -> None:
    """A whole training run, and its export."""
    run_dir = folder / "run"
    os.environ["TRAINERD_RUN_DIR"] = str(run_dir)
    os.environ["TRAINERD_CHECKPOINT_EVERY_STEPS"] = "4"
    sys.argv = [str(_TINY), "--epochs", "2", "--batches", "6"]
    runpy.run_path(str(_TINY), run_name="__main__")
    from trainerd.training.exporting import export_state, model_state

    final = CheckpointStore.of_run(RunPaths(run_dir)).newest_verified()
    assert final is not None
    export_state(model_state(final), folder / "model.pt", replace=True)


def _recover_training(folder: Path) -> None:
    """Run it again: it must come out as the undisturbed run."""
    found = _finish_training(folder)
    if found != _undisturbed_digests():
        raise BrokenError(f"the result {found} is not the undisturbed one {_undisturbed_digests()}")


@functools.cache
def _undisturbed_digests() -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="trainerd-undisturbed-") as scratch:
        return _finish_training(Path(scratch))


def _finish_training(folder: Path) -> dict[str, str]:
    """Train until the run has finished; return the digests of its final checkpoint."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRAINERD_")}
    done = subprocess.run(
        [sys.executable, "-m", "chaos.failpoint_acts", "training", str(folder)],
        env={**clean, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=_TRAINING_LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise BrokenError(f"the next attempt ended with {done.returncode}: {done.stderr.decode()[-300:]}")
    run = RunPaths(folder / "run")
    final = CheckpointStore.of_run(run).newest_verified()
    if final is None or not run.finished.exists():
        raise BrokenError(f"the run in {folder} has not finished")
    return {entry.name: entry.digest for entry in final.manifest.files}


ACTS: Final[dict[str, Act]] = {
    "checkpoints": Act(_keep_checkpoints, _recover_checkpoints),
    "journal": Act(_decide, _recover_journal),
    "spec": Act(_place_spec, _recover_spec),
    "verbs": Act(_lift_and_remove, _recover_verbs),
    "launch": Act(_launch, _recover_attempt),
    "void": Act(_void, _recover_attempt),
    "shim": Act(_launch_to_be_struck, _recover_attempt, _is_shim_killed, is_tried=True),
    "training": Act(_train, _recover_training, is_dear=True),
}


# ------------------------------------------------------------------ within


def _done(folder: Path, number: int) -> None:
    """Report, outside the folder, that something is done."""
    with folder.with_name(folder.name + ".done").open("a") as file:
        file.write(f"{number}\n")


def _all_done(folder: Path) -> list[int]:
    path = folder.with_name(folder.name + ".done")
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def _complain(found: str | None) -> None:
    if found is not None:
        raise BrokenError(found)


def _all_names() -> list[str]:
    """Return the names that the sweep has handed over: this process has not imported every module."""
    return os.environ[_NAMES].split()


def main() -> None:
    """Perform one act."""
    act, folder = ACTS[sys.argv[1]], Path(sys.argv[2])
    counts = os.environ.get(_COUNTS)
    if counts is None:
        act.perform(folder)
        return
    # Every point there is (the modules of an act are imported by then, or on the way) counts once it is
    # armed.
    failpoints.arm(";".join(f"{name}=EIO@{_NEVER}" for name in _all_names()))
    act.perform(folder)
    hits = {name: point.hits for name, point in failpoints.REGISTRY.items() if point.hits}
    Path(counts).write_text(json.dumps(hits))


if __name__ == "__main__":
    main()
