"""Comparing what was logged for a step with what the history says of its first run. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.counted import counted
from trainerd.contract.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLACE_NAMES: Final = ("step", "epoch", "batch")
OWN_NAMES: Final = frozenset({*PLACE_NAMES, "digest"})
"""Names in a row that are the session's, unless the script logs a number of that name."""

_READ_IN_SOURCE: Final = frozenset(
    {
        "carried-variable", "read-after-loop", "gathered-over-loop", "enumerate-count", "untracked-object",
        "clock-decides", "unseeded-randomness", "chdir-before-session",
    }
)  # fmt: skip
"""Rules of the analysis of the script. What the run itself has met is a likelier cause."""


@dataclass(frozen=True)
class Patterns:
    """Names that are not compared, such as measurements of time: shell patterns.

    Attributes:
        patterns: ``images_per_s``, ``time/*``.
    """

    patterns: tuple[str, ...] = ()

    def match(self, name: str) -> bool:
        """Tell whether a name is not to be compared."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


@dataclass(frozen=True)
class RowComparison:
    """What a comparison of two rows found.

    Attributes:
        has_samples: Whether the digests of the samples were compared.
        has_values: Whether at least one value was compared.
        difference: The first difference, None if there is none.
    """

    has_samples: bool
    has_values: bool
    difference: Reason | None = None


def compare_rows(
    row: Mapping[str, Any],
    digest: str | None,
    measured: Mapping[str, Any],
    *,
    step: int,
    uncompared: Patterns,
    is_same_program: bool,
) -> RowComparison:
    """Compare a row of the history with the step that was run again.

    All numbers are compared, whatever their names, and to the bit.

    Args:
        row: Of the first run of the step.
        digest: Of the samples so far; None if those of this step are not known.
        measured: What was logged now.
        step: Number of the step.
        uncompared: Names to leave out.
        is_same_program: Whether the program is unchanged: then it must also log the same names.
    """
    former = row.get("digest")
    has_samples = isinstance(former, str) and digest is not None
    then = {name: value for name, value in row.items() if _is_compared(name, measured, uncompared)}
    now = {name: value for name, value in measured.items() if _is_compared(name, measured, uncompared)}
    common = [name for name in now if name in then]
    differing = [name for name in common if not is_same(then[name], now[name])]
    where = f"step {step}"
    difference: Reason | None = None
    if has_samples and former != digest:
        difference = Reason("different-samples", where, "it used other samples")
    elif differing:
        difference = _value_difference(where, then, now, differing, len(common) - len(differing))
    elif is_same_program and then.keys() != now.keys():
        difference = _name_difference(where, then, now)
    return RowComparison(has_samples, bool(common), difference)


def differing_score(
    former: Mapping[str, Any], scores: Mapping[str, Any], *, step: int, uncompared: Patterns
) -> Reason | None:
    """Return how scores differ from those that an earlier attempt reported at the same place, None if not."""
    common = [name for name in scores if name in former and not uncompared.match(name)]
    differing = [name for name in common if not is_same(former[name], scores[name])]
    if not differing:
        return None
    found = _value_difference(f"step {step}", former, scores, differing, len(common) - len(differing))
    return replace(found, detail=f"the reported {found.detail}")


def _is_compared(name: str, measured: Mapping[str, Any], uncompared: Patterns) -> bool:
    return (name not in OWN_NAMES or name in measured) and not uncompared.match(name)


def _value_difference(
    where: str, then: Mapping[str, Any], now: Mapping[str, Any], differing: Sequence[str], equal: int
) -> Reason:
    name = differing[0]
    others = counted(len(differing) - 1, "other value differs", "other values differ")
    also = f", and {others}" if len(differing) > 1 else ""
    detail = f"{name} {then[name]!r} became {now[name]!r}{also}"
    if not equal:
        return Reason("different-value", where, detail)
    hint = f"if {name} measures time or speed, leave it out: trainerd.session(uncompared=({name!r},))"
    rest = counted(equal, "other is", "others are")
    return Reason("different-value", where, f"{detail}; {rest} equal", hint)


def _name_difference(where: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Reason:
    gone = next((name for name in then if name not in now), None)
    if gone is not None:
        return Reason("different-value", where, f"{gone} was logged in the first run and is not now")
    new = next(name for name in now if name not in then)
    return Reason("different-value", where, f"{new} is logged now and was not in the first run")


def is_same(then: Any, now: Any) -> bool:
    """Tell whether two numbers are equal to the bit; NaN equals NaN."""
    if isinstance(then, str) or isinstance(now, str):
        return bool(then == now)
    if then != then:  # noqa: PLR0124 - NaN
        return bool(now != now)  # noqa: PLR0124 - NaN
    return bool(then == now) and (then != 0 or math.copysign(1, then) == math.copysign(1, now))


def likely_cause(
    changes: Sequence[str],
    suspicions: Sequence[Reason] = (),
    *,
    is_other_data: bool,
    is_deterministic: bool,
) -> str:
    """Return what most probably made a step differ, the likeliest cause first.

    Args:
        changes: What changed in the program and its environment.
        suspicions: Known causes of inexactness that are present.
        is_other_data: Whether the samples differ.
        is_deterministic: Whether torch was told to use deterministic kernels only.
    """
    known = sorted(suspicions, key=lambda each: each.kind in _READ_IN_SOURCE)
    causes = [f"{each.where}: {each.detail}" for each in known[:1]]
    if changes:
        causes.append(f"what changed: {', '.join(changes)}")
    if is_other_data:
        causes.append("a dataset or sampler that is not the same as before")
    if not causes:
        causes.append("state that is not tracked, or random numbers from a generator of your own")
        if not is_deterministic:
            causes.append("nondeterministic kernels (torch.use_deterministic_algorithms is not on)")
    return "; or ".join(causes)
