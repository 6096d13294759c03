"""Which checkpoints are kept, and why. Pure: from what is there to a plan with reasons.

The rules are a union: what one of them keeps stays. They need no memory beyond the manifests, so the plan is the
same before and after any restart, and whatever was removed by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from trainerd.contract.policy import KeepBest, KeepEvery, RetentionPolicy


class Candidate(Protocol):
    """What retention looks at."""

    @property
    def name(self) -> str:
        """Unique among the candidates."""
        ...

    @property
    def step(self) -> int:
        """Steps finished."""
        ...

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        ...

    @property
    def created_wall_s(self) -> float:
        """When, seconds since the epoch."""
        ...

    @property
    def scores(self) -> Mapping[str, float]:
        """What was reported of it."""
        ...


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


@dataclass(frozen=True)
class RetentionPlan:
    """What to keep and what to prune, by name, oldest first, each with its reasons."""

    keep: dict[str, tuple[str, ...]]
    prune: dict[str, str]


def retention_plan(
    checkpoints: Sequence[Candidate],
    policy: RetentionPolicy,
    *,
    protected: Mapping[str, str] | None = None,
) -> RetentionPlan:
    """Decide what to keep.

    Args:
        checkpoints: All of one line, oldest first.
        policy: The rules.
        protected: Names that are kept whatever the rules say, with the reason: the newest verified one, the
            one resumed from, one that is pinned or being read.
    """
    reasons: dict[str, list[str]] = {checkpoint.name: [] for checkpoint in checkpoints}
    for name, reason in (protected or {}).items():
        if name in reasons:
            reasons[name].append(reason)
    for name, reason in _kept_by_rules(checkpoints, policy):
        reasons[name].append(reason)
    if checkpoints and not reasons[checkpoints[-1].name]:
        reasons[checkpoints[-1].name].append("newest")
    return RetentionPlan(
        keep={name: tuple(why) for name, why in reasons.items() if why},
        prune={name: "no rule keeps it" for name, why in reasons.items() if not why},
    )


def _kept_by_rules(checkpoints: Sequence[Candidate], policy: RetentionPolicy) -> Iterator[tuple[str, str]]:
    last = policy.keep_last
    newest = checkpoints if last is None else checkpoints[len(checkpoints) - min(last, len(checkpoints)) :]
    for checkpoint in newest:
        yield checkpoint.name, "all are kept" if last is None else f"among the newest {last}"
    for rule in policy.keep_best:
        for place, checkpoint in enumerate(ranked(checkpoints, rule)[: rule.n], start=1):
            yield (
                checkpoint.name,
                f"{rule.metric} {checkpoint.scores[rule.metric]!r} is number {place} of {rule.n}",
            )
    if policy.keep_every is not None:
        yield from _kept_for_good(checkpoints, policy.keep_every)


def ranked(checkpoints: Sequence[AnyCandidate], rule: KeepBest) -> list[AnyCandidate]:
    """Return those that have a score, best first. NaN and infinities are no scores. Compared exactly."""
    scored = [
        (index, checkpoint)
        for index, checkpoint in enumerate(checkpoints)
        if math.isfinite(checkpoint.scores.get(rule.metric, math.nan))
    ]
    sign = -1 if rule.mode == "max" else 1
    turn = 1 if rule.on_tie == "first" else -1
    scored.sort(key=lambda item: (sign * item[1].scores[rule.metric], turn * item[0]))
    return [checkpoint for _, checkpoint in scored]


def best_of(checkpoints: Sequence[AnyCandidate], rule: KeepBest) -> AnyCandidate | None:
    """Return the best, None if none has a score."""
    return next(iter(ranked(checkpoints, rule)), None)


def _kept_for_good(checkpoints: Sequence[Candidate], every: KeepEvery) -> Iterator[tuple[str, str]]:
    """Keep the first checkpoint of each stretch: which one that is does not change as others come and go."""
    for measure, length, position in (
        ("steps", every.steps, lambda checkpoint: checkpoint.step),
        ("seconds", every.seconds, lambda checkpoint: checkpoint.created_wall_s),
        ("epochs", every.epochs, lambda checkpoint: checkpoint.epoch),
    ):
        if not length:
            continue
        seen: set[int] = set()
        for checkpoint in checkpoints:
            stretch = int(position(checkpoint) // length)
            if stretch not in seen and stretch > 0:
                yield checkpoint.name, f"first of {length:g} {measure}"
            seen.add(stretch)


def unprunable(names: Collection[str], reason: str) -> dict[str, str]:
    """Return `protected` for `retention_plan`: these names, for this reason."""
    return dict.fromkeys(names, reason)
