"""One attempt of a drill: started under a shim, watched through the heartbeat, ended at a limit."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from trainerd.contract import records
from trainerd.contract.heartbeat import Phase, read_heartbeat
from trainerd.contract.records import ExitRecord, OutcomeRecord
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import AttemptPaths
    from trainerd.contract.records import LaunchRecord
    from trainerd.contract.save_journal import SaveEvent

LOOK_S: Final = 0.02
"""How often the heartbeat of an attempt is looked at, in seconds."""
END_LIMIT_S: Final = 15.0
"""How long a shim may take to end its ranks once it is told to kill them, in seconds."""
TRAINING_S_MIN: Final = 10.0
TRAINING_STEPS: Final = 10.0
"""An attempt trains if its newest step is no older than so many seconds, or so many of its steps."""
SAVING_INTERVALS: Final = 3.0
"""One without a session trains if its newest save is no older than so many of its longest interval."""
_OUTPUT_BYTES_MAX: Final = 8192
_OUTPUT_LINES: Final = 6

EndKind = Literal["finished", "drained", "killed", "stopped", "failed", "no-session", "too-slow", "left"]


@dataclass(frozen=True)
class DrillAttempt:
    """How an attempt of a drill went.

    Attributes:
        kind: ``finished``, ``drained``, ``killed`` by SIGKILL, ``failed``; ``no-session`` if it never opened
            one; ``stopped`` if a script without one was ended once it had come far enough; ``too-slow`` if it
            was ended at its limit; ``left`` if it was ended once enough was seen.
        duration_s: From start to end, in seconds.
        first_step_s: From start to its first finished step, in seconds; None if there was none.
        step_s: A step, in seconds, from the first to the last one seen; None for less than two.
        beat: Its last heartbeat.
        message: What went wrong, in words.
        is_training: Whether it still made steps when it was ended at its limit.
    """

    kind: EndKind
    duration_s: float
    first_step_s: float | None = None
    step_s: float | None = None
    beat: Heartbeat | None = None
    message: str = ""
    is_training: bool = False

    @property
    def step(self) -> int:
        """Last finished step."""
        return self.beat.step if self.beat is not None else 0

    @property
    def evaluated(self) -> bool:
        """Whether it was in an evaluation that the session drives."""
        return self.beat is not None and self.beat.longest_silences_s[Phase.EVALUATION] > 0


def run_attempt(
    paths: AttemptPaths,
    launch: LaunchRecord,
    *,
    limit_s: float,
    patience_s: float = 0.0,
    is_enough: Callable[[Heartbeat, float], bool] | None = None,
    saves: Callable[[], tuple[SaveEvent, ...]] = tuple,
    is_saved_enough: Callable[[], bool] | None = None,
    was_struck: Callable[[], bool] = bool,
) -> DrillAttempt:
    """Run an attempt to its end.

    Args:
        paths: Folder of the attempt.
        launch: What to start.
        limit_s: It is killed after so long, in seconds.
        patience_s: One that still makes steps is killed after so long, if that is longer.
        is_enough: Tells from the heartbeat, and the seconds since the first step, whether to kill it now.
        saves: Returns what the Checkpointers of the attempt did; looked at if it opened no session.
        is_saved_enough: Tells whether to kill an attempt without a session now.
        was_struck: Tells whether a rank of it has killed itself, as the drill asked for.
    """
    paths.root.mkdir(parents=True)
    for log in launch.log_paths:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
    records.write(paths.launch, launch)
    began_s = time.monotonic()
    with paths.shim_log.open("ab") as log_file:
        shim = subprocess.Popen(
            # -P: a module of the job's folder must not stand in for one that the shim imports.
            [sys.executable, "-P", "-m", "trainerd.shim", str(paths.root)],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
        )
    watch = _Watch(paths, began_s)
    ended: EndKind | None = None
    is_training = False
    try:
        while shim.poll() is None:
            beat = watch.look()
            if beat is None:
                has_seen_enough = is_saved_enough is not None and is_saved_enough()
            else:
                has_seen_enough = is_enough is not None and is_enough(beat, watch.since_first_step_s)
            if has_seen_enough:
                ended = "left"
            elif (age_s := time.monotonic() - began_s) > limit_s:
                is_training = watch.is_training or is_saving(saves(), time.monotonic())
                if age_s > patience_s or not is_training:
                    ended = "too-slow"
            if ended is not None:
                break
            time.sleep(LOOK_S)
        ran_s = time.monotonic() - began_s
    finally:
        _end(shim)
    beat = watch.look()
    kind, message = (
        (ended, "") if ended is not None else _how_it_ended(paths, launch, beat, saves, was_struck)
    )
    if kind == "too-slow":
        message = f"it did not end within {ran_s:.0f} s" + _last_lines(launch)
    return DrillAttempt(
        kind=kind,
        duration_s=time.monotonic() - began_s,
        first_step_s=watch.first_step_s,
        step_s=watch.step_s,
        beat=beat,
        message=message,
        is_training=is_training and kind == "too-slow",
    )


def is_saving(events: Sequence[SaveEvent], now_s: float) -> bool:
    """Return whether an attempt without a session got on a short time ago, by what its Checkpointers did."""
    at_s = [event.monotonic_s for event in events if event.kind in {"save", "update"}]
    if not at_s:
        return False
    longest_s = max((after - before for before, after in itertools.pairwise(at_s)), default=0.0)
    return now_s - at_s[-1] <= max(TRAINING_S_MIN, SAVING_INTERVALS * longest_s)


class _Watch:
    """What the heartbeats of an attempt say of its speed."""

    def __init__(self, paths: AttemptPaths, began_s: float) -> None:
        self._path = paths.heartbeat(0)
        self._began_s = began_s
        self.first_step_s: float | None = None
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    @property
    def since_first_step_s(self) -> float:
        return 0.0 if self._first is None else time.monotonic() - self._first[1]

    @property
    def step_s(self) -> float | None:
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return None
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])

    @property
    def is_training(self) -> bool:
        """Whether a step was finished a short time ago."""
        if self._last is None:
            return False
        return time.monotonic() - self._last[1] <= max(TRAINING_S_MIN, TRAINING_STEPS * (self.step_s or 0.0))

    def look(self) -> Heartbeat | None:
        try:
            beat = read_heartbeat(self._path)
        except OSError:
            return None
        if beat is None or beat.resumed_step < 0 or beat.step <= beat.resumed_step:
            return beat
        beaten_s = beat.beat_monotonic_ns / 1e9
        if self._first is None:
            self._first = beat.step, beaten_s
            self.first_step_s = beaten_s - self._began_s
        if self._last is None or beat.step > self._last[0]:
            self._last = beat.step, beaten_s
        return beat


def _end(shim: subprocess.Popen[bytes]) -> None:
    """See to it that the shim is gone, and its ranks with it."""
    if shim.poll() is not None:
        return
    shim.send_signal(signal.SIGQUIT)
    try:
        shim.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        shim.kill()
        shim.wait()


def _how_it_ended(
    paths: AttemptPaths,
    launch: LaunchRecord,
    beat: Heartbeat | None,
    saves: Callable[[], tuple[SaveEvent, ...]],
    was_struck: Callable[[], bool],
) -> tuple[EndKind, str]:
    exit_record = records.read(paths.exit, ExitRecord)
    if exit_record is None:
        return "failed", f"the shim left no record{_tail(paths.shim_log)}"
    for each in exit_record.ranks:
        if each.spawn_error is not None:
            return "failed", each.spawn_error
    outcomes = []
    for rank in range(launch.nproc):
        try:
            outcomes.append(records.read(paths.outcome(rank), OutcomeRecord))
        except TrainerdError as error:
            return "failed", str(error)
    kinds = {each.kind if each is not None else None for each in outcomes}
    if kinds == {"finished"}:
        return "finished", ""
    if kinds == {"drained"}:
        return "drained", ""
    if was_struck() and _was_killed(exit_record):
        return "killed", ""  # other ranks may have failed since, because one of them was gone
    for outcome in outcomes:
        if outcome is not None and outcome.kind not in {"finished", "drained"}:
            name = f"{outcome.error_type}: " if outcome.error_type else ""
            return "failed", f"{name}{outcome.error_message or outcome.kind}"
    if beat is not None and _was_killed(exit_record):
        return "killed", ""
    if beat is None and (events := saves()):
        return _how_it_ended_without_session(exit_record, events, launch)
    if beat is None:
        return "no-session", _last_lines(launch)
    codes = ", ".join(map(str, _codes(exit_record)))
    return "failed", f"it left with exit code {codes} and without an outcome{_last_lines(launch)}"


def _how_it_ended_without_session(
    exit_record: ExitRecord, events: tuple[SaveEvent, ...], launch: LaunchRecord
) -> tuple[EndKind, str]:
    """Return how a script with Checkpointers alone ended: it leaves as it likes once it was struck."""
    if events[-1].kind == "stop":
        return "stopped", ""
    if any(each.kind == "strike" for each in events):
        return ("killed" if _was_killed(exit_record) else "drained"), ""
    codes = _codes(exit_record)
    if all(code == 0 for code in codes):
        return "finished", ""
    return "failed", f"it left with exit code {', '.join(map(str, codes))}{_last_lines(launch)}"


def _codes(exit_record: ExitRecord) -> list[int | None]:
    return [each.exit_code if each.signal is None else -each.signal for each in exit_record.ranks]


def _was_killed(exit_record: ExitRecord) -> bool:
    # A shell between the shim and the program says so by its exit code.
    return any(code in {-signal.SIGKILL, 128 + signal.SIGKILL} for code in _codes(exit_record))


def _last_lines(launch: LaunchRecord) -> str:
    return _tail(Path(launch.log_paths[0]))


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _OUTPUT_BYTES_MAX, 0))
            lines = file.read().decode(errors="replace").splitlines()[-_OUTPUT_LINES:]
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in lines)
