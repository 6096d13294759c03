"""Comparing what the program looked like when a checkpoint was made with what it looks like now, by field.

A fingerprint is a tree of plain values; the training side takes it and a manifest carries it. Here it is only
compared, so that both halves can say what changed.

==========  ====================================================================================
verdict     means
==========  ====================================================================================
same        unchanged
compatible  another value, with which training can go on; perhaps not bit for bit
refused     another value, with which going on would train something else than was begun
==========  ====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Verdict = Literal["same", "compatible", "refused"]

PARAMETERS: Final = "parameters"
DATA: Final = "data"
OPTIONS: Final = "options"
"""What the program says of its optimizers and schedulers. A resume puts the saved values in their place."""
SHOWN_MAX: Final = 40
"""How much of a value a sentence shows, in characters."""
_ABSENT: Final = "absent"
_DIGEST: Final = "xxh3-"


@dataclass(frozen=True)
class FieldVerdict:
    """One field of two fingerprints.

    Attributes:
        field: Its path, such as ``libraries.torch``.
        verdict: What its value now means for a resume.
        before: What it was.
        now: What it is.
    """

    field: str
    verdict: Verdict
    before: str
    now: str

    def __str__(self) -> str:
        if self.before.startswith(_DIGEST) and self.now.startswith(_DIGEST):
            return f"{self.field} changed"  # a digest says nothing to a reader
        return f"{self.field}: {_shown(self.before)} → {_shown(self.now)}"


def compared(
    before: Mapping[str, Any], now: Mapping[str, Any], *, is_inside_epoch: bool
) -> tuple[FieldVerdict, ...]:
    """Judge every field.

    A section that one side does not have at all was not looked at there, and is left out.

    Args:
        before: Of the checkpoint.
        now: Of the program.
        is_inside_epoch: Whether some of an epoch's batches are done: the rest of them depends on the data's
            length.
    """
    sections = [section for section in before if section in now]
    leaves_before = {section: dict(_leaves(section, before[section])) for section in sections}
    leaves_now = {section: dict(_leaves(section, now[section])) for section in sections}
    verdicts = []
    for section in sections:
        refuses = section == PARAMETERS or (section == DATA and is_inside_epoch)
        for field in dict.fromkeys((*leaves_before[section], *leaves_now[section])):
            was, is_ = (leaves[section].get(field, _ABSENT) for leaves in (leaves_before, leaves_now))
            differing: Verdict = "refused" if refuses and _ABSENT not in {was, is_} else "compatible"
            verdicts.append(FieldVerdict(field, "same" if was == is_ else differing, was, is_))
    return tuple(verdicts)


def changes(verdicts: Iterable[FieldVerdict]) -> tuple[FieldVerdict, ...]:
    """Return the fields that are not the same."""
    return tuple([each for each in verdicts if each.verdict != "same"])


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list | tuple):
        yield path, " ".join(map(str, value)) or "none"
    else:
        yield path, str(value)


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…"
