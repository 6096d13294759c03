"""Which checkpoints stay: a pure function of what is on disk and the policy, with the reasons.

Invariants:
    A checkpoint that exists because an attempt ended takes no place of `keep_last` from one that was made by
    plan: a run that crashes again and again keeps those to which it can go back.
    `keep_last` and such a checkpoint together keep `keep_last` + 1 at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainerd.contract.save_reasons import SAVED_AT_END

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.contract.policy import KeepBest, KeepEvery, RetentionPolicy

__all__ = [
    "Candidate",
    "RetentionDecision",
    "RetentionPlan",
    "best_of",
    "candidate_of",
    "ranked",
    "retention_plan",
    "unscored",
]


@dataclass(frozen=True)
class Candidate:
    """What retention needs to know of a checkpoint."""

    name: str
    step: int
    ordinal: int = 0
    epoch: int = 0
    created_wall_s: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    is_saved_at_end: bool = False

    @property
    def order(self) -> tuple[int, int]:
        return self.step, self.ordinal


@dataclass(frozen=True)
class RetentionDecision:
    """What becomes of one checkpoint, and every reason for it."""

    name: str
    is_kept: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'keep' if self.is_kept else 'prune':5}  {self.name}  {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class RetentionPlan:
    """What becomes of every checkpoint, oldest first."""

    decisions: tuple[RetentionDecision, ...]

    @property
    def keep(self) -> tuple[RetentionDecision, ...]:
        return tuple([decision for decision in self.decisions if decision.is_kept])

    @property
    def prune(self) -> tuple[RetentionDecision, ...]:
        return tuple([decision for decision in self.decisions if not decision.is_kept])

    def __str__(self) -> str:
        return "\n".join(str(decision) for decision in self.decisions)


def retention_plan(
    checkpoints: Sequence[Candidate],
    policy: RetentionPolicy,
    *,
    protected: Collection[str] | Mapping[str, str] = (),
    pinned: Mapping[str, str] | None = None,
    in_use: Collection[str] = (),
    newest_verified: str | None = None,
) -> RetentionPlan:
    """Decide which checkpoints stay.

    Args:
        checkpoints: All of them, in any order.
        policy: What the user wants kept.
        protected: Never pruned, such as the one resumed from. With a mapping, each with its reason.
        pinned: Those that a person pinned, each with the person's note.
        in_use: Those that are being read.
        newest_verified: The newest one whose digests were read. Without one nothing is pruned: there would be
            no proof that anything sound is left.
    """
    ordered = sorted(checkpoints, key=lambda candidate: candidate.order)
    reasons: dict[str, list[str]] = {candidate.name: [] for candidate in ordered}
    rules = [
        _newest(ordered, policy.keep_last),
        *(_best(ordered, rule) for rule in policy.keep_best),
        _regular(ordered, policy.keep_every),
        _by_name(pinned or {}, lambda note: f"pinned: {note}" if note else "pinned"),
        _by_name(_with_reasons(protected), lambda reason: reason),
        _by_name(dict.fromkeys(in_use, ""), lambda _: "being read"),
        _verified(ordered, newest_verified),
    ]
    for rule in rules:
        for name, reason in rule:
            if name in reasons and reason not in reasons[name]:
                reasons[name].append(reason)
    return RetentionPlan(
        tuple(
            [
                RetentionDecision(name, bool(given), tuple(given) or ("no rule keeps it",))
                for name, given in reasons.items()
            ]
        )
    )


def ranked(candidates: Sequence[Candidate], rule: KeepBest) -> list[Candidate]:
    """Return those that have a finite score, best first. NaN and infinities never rank.

    Scores are compared exactly. Of two that are equal, `rule.on_tie` says whether the first or the latest
    one ranks higher.
    """
    sign = -1.0 if rule.mode == "max" else 1.0
    scored = [
        candidate for candidate in candidates if math.isfinite(candidate.scores.get(rule.metric, math.nan))
    ]
    scored.sort(key=lambda candidate: candidate.order, reverse=rule.on_tie == "latest")
    scored.sort(key=lambda candidate: sign * candidate.scores[rule.metric])  # stable: ties stay as they are
    return scored


def best_of(checkpoints: Sequence[Checkpoint], rule: KeepBest) -> Checkpoint | None:
    """Return the checkpoint that ranks first, None if none has a finite score of that name."""
    by_name = {checkpoint.name: checkpoint for checkpoint in checkpoints}
    best = ranked([candidate_of(checkpoint) for checkpoint in checkpoints], rule)
    return by_name[best[0].name] if best else None


def unscored(checkpoints: Sequence[Checkpoint], policy: RetentionPolicy) -> tuple[str, ...]:
    """Return the metrics of `keep_best` of which no checkpoint has a finite score."""
    return tuple([rule.metric for rule in policy.keep_best if best_of(checkpoints, rule) is None])


def candidate_of(checkpoint: Checkpoint) -> Candidate:
    """Return what retention needs to know of a checkpoint."""
    manifest = checkpoint.manifest
    return Candidate(
        checkpoint.name,
        checkpoint.step,
        checkpoint.ordinal,
        manifest.epoch,
        manifest.created_wall_s,
        manifest.scores,
        manifest.reason in SAVED_AT_END,
    )


def _newest(ordered: Sequence[Candidate], count: int | None) -> Iterator[tuple[str, str]]:
    """Yield the newest ones; those saved at the end of an attempt take the places that others leave free."""
    if count is None:
        yield from ((candidate.name, "all are kept") for candidate in ordered)
        return
    newest_first = list(reversed(ordered))
    planned = [candidate for candidate in newest_first if not candidate.is_saved_at_end][:count]
    at_end = [candidate for candidate in newest_first if candidate.is_saved_at_end][: count - len(planned)]
    places = sorted([*planned, *at_end], key=lambda candidate: candidate.order, reverse=True)
    for rank, candidate in enumerate(places, start=1):
        yield candidate.name, f"newest {rank} of {count}"
    if count and newest_first and newest_first[0].is_saved_at_end:
        yield newest_first[0].name, "newest, saved as an attempt ended"


def _best(ordered: Sequence[Candidate], rule: KeepBest) -> Iterator[tuple[str, str]]:
    for rank, candidate in enumerate(ranked(ordered, rule)[: rule.n], start=1):
        score = candidate.scores[rule.metric]
        yield candidate.name, f"best {rank} of {rule.n} by {rule.metric} ({rule.mode}): {score!r}"


def _regular(ordered: Sequence[Candidate], rule: KeepEvery | None) -> Iterator[tuple[str, str]]:
    """Yield the first checkpoint at or after each multiple of the rule's steps, epochs and seconds.

    Time is cut at multiples since the epoch of the clock, not since the first checkpoint: the answer must not
    change when that one is gone. A clock that jumps back adds nothing, one that jumps ahead keeps one more.
    """
    if rule is None:
        return
    for unit, length, position in (
        ("steps", rule.steps, lambda candidate: candidate.step),
        ("epochs", rule.epochs, lambda candidate: candidate.epoch),
        ("seconds", rule.seconds, lambda candidate: candidate.created_wall_s),
    ):
        if length:
            yield from _first_of_each(ordered, position, length, f"first of each {length:g} {unit}")


def _first_of_each(
    ordered: Sequence[Candidate], position: Callable[[Candidate], float], length: float, reason: str
) -> Iterator[tuple[str, str]]:
    seen = {0.0}  # nothing is owed before the first multiple
    for candidate in ordered:
        stretch = position(candidate) // length
        if stretch not in seen:
            seen.add(stretch)
            yield candidate.name, reason


def _by_name(names: Mapping[str, str], reason_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    for name, text in names.items():
        yield name, reason_of(text)


def _with_reasons(names: Collection[str] | Mapping[str, str]) -> Mapping[str, str]:
    return names if isinstance(names, dict) else dict.fromkeys(names, "protected")


def _verified(ordered: Sequence[Candidate], newest_verified: str | None) -> Iterator[tuple[str, str]]:
    if newest_verified is not None:
        yield newest_verified, "newest verified"
        return
    yield from ((candidate.name, "nothing is verified, so nothing is pruned") for candidate in ordered)
