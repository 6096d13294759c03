"""Refuses an attempt or a rank that a job does not have, and names those that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.contract import records
from trainerd.contract.records import LaunchRecord
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from collections.abc import Collection

    from trainerd.contract.paths import RunPaths


def check_attempt(run: RunPaths, attempt: int) -> None:
    """Refuse an attempt that the run does not have.

    Raises:
        UserError: There is no such attempt.
        PermissionError: This user may not look for it.
    """
    found = run.attempt_numbers()
    if attempt not in found:
        raise UserError(
            f"no attempt {attempt} of {run.root.name}",
            hint=f"its {_listed('attempt', found)}" if found else "none was launched yet",
        )


def check_rank(run: RunPaths, rank: int, attempt: int | None, logged: Collection[int]) -> None:
    """Refuse a rank that the job does not have; a job that was never launched may come to have any.

    Args:
        run: The run folder.
        rank: The rank that is asked for.
        attempt: The attempt that is asked for; None is all of them.
        logged: Ranks that have a log, of any attempt.

    Raises:
        UserError: There is no such rank.
        PermissionError: This user may not look for it.
    """
    if attempt is None and rank in logged:
        return
    started = _started_ranks(run, attempt if attempt is not None else run.newest_attempt())
    found = started if attempt is not None and started else started | set(logged)
    if found and rank not in found:
        whose = run.root.name if attempt is None else f"attempt {attempt} of {run.root.name}"
        raise no_such_rank(rank, whose, found)


def no_such_rank(rank: int, whose: str, ranks: Collection[int]) -> UserError:
    """Return the error for a rank that a job or an attempt does not have."""
    return UserError(f"no rank {rank} of {whose}", hint=f"its {_listed('rank', ranks)}")


def _started_ranks(run: RunPaths, attempt: int) -> set[int]:
    """Return the ranks that an attempt was to start, none if that is not on record."""
    try:
        launch = records.read(run.attempt(attempt).launch, LaunchRecord) if attempt else None
    except CorruptError:
        return set()
    return set(range(len(launch.log_paths))) if launch is not None else set()


def _listed(what: str, numbers: Collection[int]) -> str:
    first, *rest = sorted(numbers)
    if not rest:
        return f"only {what} is {first}"
    if rest[-1] - first == len(rest):
        return f"{what}s are {first} to {rest[-1]}"
    return f"{what}s are {', '.join(map(str, (first, *rest)))}"
