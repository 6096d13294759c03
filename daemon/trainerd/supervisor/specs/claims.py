"""Which file gives which job, where several claim one name. Pure: decided from the claims and who held what.

A holder keeps its name while it claims it, through edits, errors and the moment in which an editor has
removed the file to write it again. Among new claimants a valid spec comes before a broken one, then the older
file, then the first by name. The loser is refused under another name, with a sentence that says who won.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract.names import NAME_LENGTH_MAX, check_name
from trainerd.errors import UserError
from trainerd.supervisor.specs.view import Accepted, Refused, SpecReading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Broken:
    """Why a file is no good, and which name it claims all the same."""

    error_text: str
    says_name: str | None = None


@dataclass(frozen=True)
class Claim:
    """One file and what it says.

    Attributes:
        path: The file.
        reading: What it says; None if it has never been read, because it has not settled yet.
        mtime_ns: When it was last written.
        is_missing: Whether it is gone at this moment, and only waited for.
    """

    path: Path
    reading: Accepted | Broken | None
    mtime_ns: int
    is_missing: bool = False


@dataclass(frozen=True)
class Awarded:
    """Who has which name.

    Attributes:
        specs: By name.
        holders: The file of each name that stays with it from now on.
        waiting: Files that claim the name of one that is missing at this moment, as after a rename, or
            unsettled.
    """

    specs: dict[str, SpecReading]
    holders: dict[str, Path]
    waiting: tuple[Path, ...]


def awarded_names(claims: Iterable[Claim], holders: Mapping[str, Path]) -> Awarded:
    """Decide which of `claims` has which name, given who has held which until now."""
    held = {path: name for name, path in holders.items()}
    by_name: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        claimed = _claimed(claim, held.get(claim.path))
        if claimed is not None:
            by_name[claimed].append(claim)
    specs: dict[str, SpecReading] = {}
    kept: dict[str, Path] = {}
    lost: list[tuple[Claim, Claim, str]] = []
    for name, rivals in by_name.items():
        winner, *others = sorted(rivals, key=lambda claim: _rank(claim, holders.get(name)))
        if isinstance(winner.reading, Accepted):
            specs[name] = winner.reading
        elif winner.reading is not None:
            specs[name] = Refused(name, winner.path, winner.reading.error_text)
        if isinstance(winner.reading, Accepted) or holders.get(name) == winner.path:
            kept[name] = winner.path
        lost += [(loser, winner, name) for loser in others]
    waiting = []
    for loser, winner, name in sorted(lost, key=lambda each: each[0].path):
        if winner.is_missing or winner.reading is None:
            waiting.append(loser.path)
        elif not loser.is_missing:
            refused = _refused(loser, winner, name, specs)
            specs[refused.name] = refused
    return Awarded(dict(sorted(specs.items())), kept, tuple(waiting))


def _claimed(claim: Claim, held: str | None) -> str | None:
    if isinstance(claim.reading, Accepted):
        return claim.reading.name
    if claim.reading is None:
        return held
    return held or claim.reading.says_name or _made_name(claim.path.stem)


def _rank(claim: Claim, holder: Path | None) -> tuple[bool, bool, int, str]:
    is_holder = holder == claim.path
    return (not is_holder, not isinstance(claim.reading, Accepted), claim.mtime_ns, claim.path.name)


def _refused(loser: Claim, winner: Claim, name: str, taken: Mapping[str, SpecReading]) -> Refused:
    if isinstance(loser.reading, Broken):
        text = loser.reading.error_text
    else:
        text = (
            f"{loser.path}: another spec already gives the job {name!r}: {winner.path}\n"
            f"  remove one of the two, or set another name in this one"
        )
    return Refused(_free_name(loser.path.name, taken), loser.path, text)


def _made_name(text: str) -> str:
    """Return `text` if it can name a job, else the nearest name that can."""
    try:
        return check_name(text)
    except UserError:
        plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
        return plain[:NAME_LENGTH_MAX] or "unnamed"


def _free_name(file_name: str, taken: Iterable[str]) -> str:
    """Return a name for a file that lost its own: its stem, else its whole name, else that with a number."""
    names = set(taken)
    whole = _made_name(file_name)
    numbered = (f"{whole[: NAME_LENGTH_MAX - 10]}.{number}" for number in range(2, len(names) + 4))
    candidates = [_made_name(Path(file_name).stem), whole, *numbered]
    return next(name for name in candidates if name not in names)
