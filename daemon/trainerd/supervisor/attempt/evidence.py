"""Collects what is known of an ending: reads records, heartbeats, checkpoints and the end of a log.

Each source may be missing or unreadable; that is noted as trouble and judged, never guessed over.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from trainerd.contract import exit_codes, records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.records import FinishedRecord, LaunchRecord, OutcomeRecord, RanksRecord, StallRecord
from trainerd.contract.safe_text import safe_line, safe_text
from trainerd.contract.save_reasons import FLUSHED, SAVED_AT_END
from trainerd.contract.session_record import read_sessions, session_files
from trainerd.errors import UserError
from trainerd.shim.environment_file import read_environment_file
from trainerd.supervisor.attempt.interpreter_used import interpreter_used
from trainerd.supervisor.machine.outcome import Evidence
from trainerd.supervisor.machine.states import FileMark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trainerd.checkpoint.store import Checkpoint
    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import AttemptPaths, RunPaths
    from trainerd.contract.records import ExitRecord
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.contract.session_record import SessionRecord

LOG_TAIL_BYTES: Final = 64 * 1024
LOG_TAIL_LINES: Final = 40
LOG_LINE_CHARACTERS_MAX: Final = 1000
SECRET_LENGTH_MIN: Final = 6
"""Shorter values of an env_file are too common in ordinary text to be hidden in it."""

CHAINS_MAX: Final = 16
"""Of how many sessions an ending says where they ran."""

RANKS_MAX: Final = 4096
"""Of how many ranks the records are read."""

NOT_LOOKED_AT: Final = "the checkpoints could not be looked at"

EARLIER_ATTEMPTS_MAX: Final = 64
"""In how many earlier attempts, newest first, a session is looked for."""

HIDDEN: Final = "(hidden)"

T = TypeVar("T")


def gather_evidence(
    job: ResolvedJob,
    run: RunPaths,
    attempt: int,
    *,
    spec_digest: str,
    ending: ExitRecord | None,
    lost_because: str = "",
    is_after_reboot: bool = False,
    looks_at_checkpoints: bool = True,
) -> Evidence:
    """Collect what is known of an attempt of which no process is left. Blocks: it may verify a checkpoint.

    Args:
        job: The spec, newest.
        run: Its run folder.
        attempt: Number of the attempt.
        spec_digest: Of the spec under which the attempt was launched.
        ending: What the shim recorded, None if it was lost.
        lost_because: Why there is no exit record.
        is_after_reboot: Whether the machine was restarted since, or it is another machine.
        looks_at_checkpoints: Whether to; where they cannot be read for long, an ending is judged without.

    Raises:
        OSError: The checkpoints cannot be looked at now: unknown, to be tried again.
    """
    trouble: list[str] = []
    paths = run.attempt(attempt)
    nproc = max(len(ending.ranks) if ending is not None else job.nproc, _ranks_with_records(paths))
    outcomes = tuple(
        _tolerant(partial(records.read, paths.outcome(rank), OutcomeRecord), trouble) for rank in range(nproc)
    )
    sessions = read_sessions(paths)
    beats = [beat for rank in range(nproc) if (beat := _beat(paths.heartbeat(rank))) is not None]
    finished = _tolerant(partial(records.read, run.finished, FinishedRecord), trouble)
    stall = _tolerant(partial(records.read, paths.stall, StallRecord), trouble)
    launch = _tolerant(partial(records.read, paths.launch, LaunchRecord), trouble)
    found: tuple[Checkpoint, ...] = ()
    if looks_at_checkpoints:
        found = _checkpoints(run, must_verify=_claims_drained(ending, outcomes))
    else:
        trouble.append(NOT_LOOKED_AT)
    newest = found[-1] if found else None
    is_new = newest is not None and newest.manifest.attempt == attempt
    secrets = _secrets(job)
    outcomes = tuple(_without_secrets(record, secrets) for record in outcomes)
    return Evidence(
        attempt=attempt,
        exit=ending,
        outcomes=outcomes,
        lost_because=lost_because,
        is_after_reboot=is_after_reboot,
        has_session=any(beat.beats > 0 for beat in beats) or any(outcomes) or bool(sessions),
        has_trained_before=_has_trained_before(run, attempt),
        has_stepped=any(beat.step > max(beat.resumed_step, 0) for beat in beats),
        step=_last_step(beats, outcomes, newest.step if newest is not None and is_new else None),
        checkpoint=newest.name if newest is not None else None,
        checkpoint_step=newest.step if newest is not None else None,
        is_checkpoint_new=is_new,
        checkpoint_before=_checkpoint_before(found),
        saved_at_end=_saved_at_end(found) if is_new else None,
        resumed_from=_resumed_from(beats, found),
        on_nonfinite_loss=job.on_nonfinite_loss,
        completion=job.completion,
        is_wrapped=_is_wrapped(paths, sessions, trouble),
        chains=tuple(_hidden(_chain(session), secrets) for session in sessions[:CHAINS_MAX]),
        is_finish_recorded=finished is not None and finished.spec_digest == spec_digest,
        stall=stall,
        log_tail=tuple(_hidden(line, secrets) for line in _log_tail(run, attempt, ending)),
        interpreter=interpreter_used(job, launch),
        trouble=tuple(trouble),
    )


def _checkpoint_before(found: Sequence[Checkpoint]) -> str | None:
    """Return the checkpoint to go back to from the newest of these, None if there is none.

    One that was saved because an attempt ended holds the same trouble as the newest that was made by plan. If
    such a one is the newest, both are left behind, and those of earlier attempts in between, if there is
    another that was made by plan.
    """
    regular = [each for each in found if each.manifest.reason not in SAVED_AT_END]
    if regular and found[-1] is not regular[-1]:
        return regular[-2:][0].name
    return found[-2].name if len(found) > 1 else None


def _saved_at_end(found: Sequence[Checkpoint]) -> str | None:
    return found[-1].name if found[-1].manifest.reason == FLUSHED else None


def _is_wrapped(paths: AttemptPaths, sessions: Sequence[SessionRecord], trouble: list[str]) -> bool:
    """Return whether a process that trained is not the command of its rank, but below it."""
    ranks = _tolerant(partial(records.read, paths.ranks, RanksRecord), trouble)
    if ranks is None:
        return any(len(session.chain) > 1 for session in sessions)
    return any(session.process not in ranks.processes for session in sessions)


def _chain(session: SessionRecord) -> str:
    return f"rank {session.rank} trained in {' > '.join(session.chain)}"


def script_marks(job: ResolvedJob) -> tuple[FileMark, ...]:
    """Return what the files look like that a command names: the script, a configuration."""
    marks = []
    for word in job.command:
        path = os.path.join(job.workdir, word)  # noqa: PTH118 - a word of a command need not be a sane path
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(path)  # noqa: PTH116 - likewise
            marks.append(FileMark(path, status.st_size, status.st_mtime_ns))
    return tuple(marks)


def _tolerant(read: Callable[[], T | None], trouble: list[str]) -> T | None:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - whatever it holds: an ending is judged without it
        trouble.append(safe_text(f"could not be read: {error}"))
        return None


def _beat(path: Path) -> Heartbeat | None:
    with contextlib.suppress(OSError, ValueError):
        return read_heartbeat(path)
    return None


def _ranks_with_records(paths: AttemptPaths) -> int:
    """Return how many ranks left something: torchrun starts more than the shim did."""
    count = 0
    with contextlib.suppress(OSError):
        while count < RANKS_MAX and (paths.outcome(count).exists() or paths.heartbeat(count).exists()):
            count += 1
    return count


def _has_trained_before(run: RunPaths, attempt: int) -> bool:
    """Return whether an earlier attempt has opened a session; its folder may be gone."""
    for number in range(attempt - 1, max(0, attempt - 1 - EARLIER_ATTEMPTS_MAX), -1):
        paths = run.attempt(number)
        with contextlib.suppress(OSError):
            if session_files(paths) or _ranks_with_records(paths):
                return True
    return False


def _claims_drained(ending: ExitRecord | None, outcomes: Sequence[OutcomeRecord | None]) -> bool:
    """Return whether the verdict will rest on a checkpoint, so that its digests must be read."""
    if ending is None:
        return False
    codes = {rank.exit_code for rank in ending.ranks}
    is_asked = ending.stop_requested_s is not None
    said = any(record is not None and record.kind == "drained" for record in outcomes)
    return exit_codes.DRAINED in codes or is_asked or said


def _checkpoints(run: RunPaths, *, must_verify: bool) -> tuple[Checkpoint, ...]:
    """Return the checkpoints up to the newest one that counts, oldest first."""
    if not run.checkpoints.is_dir():
        return ()
    from trainerd.checkpoint.store import CheckpointStore  # a supervisor of plain commands never needs it

    store = CheckpointStore.of_run(run)
    # Any other was read back when it was committed, and a resume from it verifies it.
    newest = store.newest_verified() if must_verify else None
    if must_verify and newest is None:
        return ()
    return tuple(
        checkpoint for checkpoint in store.checkpoints() if newest is None or checkpoint.place <= newest.place
    )


def _resumed_from(beats: Sequence[Heartbeat], checkpoints: Sequence[Checkpoint]) -> str | None:
    """Return the name of the checkpoint that an attempt resumed, None if it resumed none or never said."""
    step = max((beat.resumed_step for beat in beats), default=0)
    if step <= 0:
        return None
    there = [checkpoint.name for checkpoint in checkpoints if checkpoint.step == step]
    return there[-1] if there else f"step-{step:09d}"


def _last_step(
    beats: Sequence[Heartbeat], outcomes: Sequence[OutcomeRecord | None], checkpoint_step: int | None
) -> int | None:
    steps = [beat.step for beat in beats]
    steps += [record.step for record in outcomes if record is not None and record.step is not None]
    steps += [checkpoint_step] if checkpoint_step is not None else []
    return max(steps, default=0) or None


_ATTEMPT_LINE: Final = re.compile(r"--- attempt (\d+) started ")


def _log_tail(run: RunPaths, attempt: int, ending: ExitRecord | None) -> list[str]:
    """Return the last lines of this attempt, from the log of the first rank that ended badly."""
    bad = [rank.rank for rank in ending.ranks if rank.exit_code != 0] if ending is not None else []
    try:
        with run.rank_log(bad[0] if bad else 0).open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LOG_TAIL_BYTES))
            text = log.read(LOG_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return []
    lines = text.split("\n")
    for index in range(len(lines) - 1, -1, -1):
        found = _ATTEMPT_LINE.match(lines[index])
        if found:
            lines = lines[index + 1 :] if int(found[1]) == attempt else []
            break
    # A progress bar draws over its line: what it drew last is what it shows.
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
    while shown and not shown[-1]:
        shown.pop()
    return [safe_line(line, characters_max=LOG_LINE_CHARACTERS_MAX) for line in shown[-LOG_TAIL_LINES:]]


def _secrets(job: ResolvedJob) -> list[str]:
    if job.env_file is None:
        return []
    from pathlib import Path

    try:
        values = read_environment_file(Path(job.env_file)).values()
    except (UserError, OSError, ValueError):
        return []
    return sorted((value for value in values if len(value) >= SECRET_LENGTH_MIN), key=len, reverse=True)


def _without_secrets(record: OutcomeRecord | None, secrets: Sequence[str]) -> OutcomeRecord | None:
    if record is None or not secrets:
        return record
    message = None if record.error_message is None else _hidden(record.error_message, secrets)
    return replace(
        record, error_message=message, detail=tuple(_hidden(line, secrets) for line in record.detail)
    )


def _hidden(line: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        line = line.replace(secret, HIDDEN)
    return line
