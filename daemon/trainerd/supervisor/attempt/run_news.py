"""What ranks find and the supervisor logs: quarantine, fallback, lost steps and the verdict of a resume.

The ranks write it into the run folder (``resume.json``, ``quarantine/``). Each is news once in an attempt,
also for the supervisor that adopts it: what was told is kept in the attempt's folder. A crash between telling
and keeping tells it twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from trainerd.checkpoint.aside import AsideFolder
from trainerd.contract.durable import read_file
from trainerd.contract.resume_record import read_resume, summary
from trainerd.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.checkpoint.aside import Aside
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.resume_record import ResumeRecord

TOLD_MAX: Final = 1000
"""So many findings are told at one look."""

_TOLD_BYTES_MAX: Final = 1 << 20
_INEXACT: Final = frozenset({"suspect", "different"})


@dataclass(frozen=True)
class RankFinding:
    """One thing that a rank found.

    Attributes:
        key: What tells it from others of the same attempt.
        event: Name of the event in the catalogue.
        fields: Its fields, without job and attempt.
    """

    key: str
    event: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Told:
    """What was told of an attempt.

    Attributes:
        keys: Of the findings.
        kept: Those that are on record.
        seen: What the files looked like that were read last.
    """

    keys: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    seen: tuple[object, ...] = ()


def findings(attempt: int, record: ResumeRecord | None, asides: Sequence[Aside]) -> list[RankFinding]:
    """Return what is to be told of an attempt, in the order in which it came about."""
    found = [
        RankFinding(
            f"aside {aside.path.name}",
            "checkpoint.quarantined",
            {"checkpoint": aside.name, "reason": aside.reason},
        )
        for aside in asides
    ]
    if record is None or record.attempt != attempt:
        return found
    place = {"checkpoint": record.checkpoint, "step": record.step}
    found += [
        RankFinding(f"fallback {reason.where}", "resume.fallback", {**place, "reason": str(reason)})
        for reason in record.reasons
        if reason.kind == "fallback"
    ]
    if record.lost:
        found.append(RankFinding("lost", "resume.lost-steps", {"lost_steps": record.lost, **place}))
    event = "resume.inexact" if record.verdict in _INEXACT else "resume.verdict"
    fields = {"verdict": record.verdict, **place, "lost_steps": record.lost, "reason": summary(record)}
    return [*found, RankFinding(f"verdict {record.verdict}", event, fields)]


def look_for_findings(run: RunPaths, attempt: int, told: Told | None) -> tuple[list[RankFinding], Told]:
    """Return what is news in a run folder, and what was told then. Blocks.

    Args:
        run: The run folder.
        attempt: Of whose ranks.
        told: What this returned last; None at first.

    Raises:
        OSError: The folder could not be looked at.
    """
    if told is None:
        keys = _read_told(run, attempt)
        told = Told(keys, keys)
    elif told.keys != told.kept:
        _keep(run, attempt, told.keys)
        told = replace(told, kept=told.keys)
    seen = (_mark(run.resume), _mark(run.quarantine))
    if seen == told.seen:
        return [], told
    news = [each for each in _on_disk(run, attempt) if each.key not in told.keys][:TOLD_MAX]
    return news, replace(told, keys=told.keys | {each.key for each in news}, seen=seen)


def note_what_is_aside(run: RunPaths, attempt: int) -> None:
    """Keep what is in quarantine before an attempt: that is no finding of its ranks. Blocks.

    Raises:
        OSError: It cannot be kept.
    """
    if keys := frozenset(f"aside {aside.path.name}" for aside in AsideFolder(run.quarantine).list()):
        _keep(run, attempt, keys)


def _on_disk(run: RunPaths, attempt: int) -> list[RankFinding]:
    try:
        record = read_resume(run.resume)
    except CorruptError:
        record = None  # `status` says so
    return findings(attempt, record, AsideFolder(run.quarantine).list())


def _mark(path: Any) -> object:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_told(run: RunPaths, attempt: int) -> frozenset[str]:
    try:
        plain = json.loads(read_file(run.attempt(attempt).told, bytes_max=_TOLD_BYTES_MAX))
    except (OSError, ValueError, RecursionError, CorruptError):
        return frozenset()
    return frozenset(key for key in plain if isinstance(key, str)) if isinstance(plain, list) else frozenset()


def _keep(run: RunPaths, attempt: int, keys: frozenset[str]) -> None:
    """Write it, not durably: after a power cut no rank of this attempt is left to tell of."""
    path = run.attempt(attempt).told
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(sorted(keys)))
    temporary.replace(path)
