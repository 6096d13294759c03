"""Values to try, as they are written on a command line: lists, and ranges with a step or a factor."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import TYPE_CHECKING, Final

from trainerd.cli.ad_hoc import free_name
from trainerd.contract.names import NAME_LENGTH_MAX
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

VALUES_MAX: Final = 1000
"""Most jobs of a sweep, and most values of a range."""

_RANGE: Final = re.compile(
    r"(?P<first>[^.,:*]+(?:\.\d+)?)\.\.(?P<last>[^,:*]+)(?:(?P<how>[:*])(?P<by>[^,:*]+))?"
)
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9_.-]+")


def read_setting(text: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``.

    Raises:
        UserError: It is not that.
    """
    key, equals, value = text.partition("=")
    key = key.strip().lstrip("-")
    if not equals or not key:
        raise UserError(f"{text!r} is no KEY=VALUE", hint="write for example: --set lr=0.1")
    return key, value


def read_axis(text: str) -> tuple[str, tuple[str, ...]]:
    """Return key and values of ``KEY=A,B``, ``KEY=1..5``, ``KEY=0..1:0.25`` or ``KEY=1e-4..1e-1*10``.

    Raises:
        UserError: It is not that.
    """
    key, given = read_setting(text)
    values: list[str] = []
    for part in given.split(","):
        found = _RANGE.fullmatch(part.strip())
        values += _range(text, found) if found else [part.strip()]
        if len(values) > VALUES_MAX:
            raise UserError(f"--set {text}: more than {VALUES_MAX} values", hint="use a larger step")
    values = list(dict.fromkeys(values))
    if "" in values:
        raise UserError(f"--set {text}: a value is empty", hint="write for example: --set lr=0.1,0.01")
    return key, tuple(values)


def _range(text: str, found: re.Match[str]) -> list[str]:
    try:
        first, last = Decimal(found["first"]), Decimal(found["last"])
        by = Decimal(found["by"]) if found["by"] else Decimal(1)
    except InvalidOperation:
        return [found[0]]  # a text with two dots, such as a path
    if not (first.is_finite() and last.is_finite() and by.is_finite()):
        raise UserError(f"--set {text}: a range needs numbers", hint="write for example: --set seed=1..5")
    is_whole = first == first.to_integral_value() and last == last.to_integral_value()
    if not found["by"] and not is_whole:
        raise UserError(
            f"--set {text}: a range of fractions needs a step or a factor",
            hint=f"write for example: {found['first']}..{found['last']}:0.1, or …*10",
        )
    if found["how"] == "*":
        is_sound, moves_on = by > 0 and by != 1 and first * last > 0, (abs(last) > abs(first)) == (by > 1)
    else:
        is_sound, moves_on = by != 0, (last > first) == (by > 0)
    if not is_sound or (first != last and not moves_on):
        raise UserError(
            f"--set {text}: the range never gets from {first} to {last}",
            hint="give a step with the right sign (:-1), or a factor of another size (*0.1)",
        )
    values: list[Decimal] = []
    value = first
    while abs(value - first) <= abs(last - first) and len(values) <= VALUES_MAX:
        values.append(value)
        value = value * by if found["how"] == "*" else value + by
    return [_plain(each) for each in values]


def _plain(value: Decimal) -> str:
    """Return a number as it is written in a command: 0.0001 as 0.0001, 1E+2 as 100, 1E-7 as 1e-07."""
    return (
        str(int(value))
        if value == value.to_integral_value() and abs(value) < 10**15
        else f"{float(value):.12g}"
    )


def combinations(axes: Sequence[tuple[str, tuple[str, ...]]]) -> list[dict[str, str]]:
    """Return every combination of the values, the last key varying fastest.

    Raises:
        UserError: A key comes twice, or there are too many.
    """
    keys = [key for key, _ in axes]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise UserError(f"--set {twice} is given twice", hint=f"list its values: --set {twice}=A,B")
    count = 1
    for _, values in axes:
        count *= len(values)
    if count > VALUES_MAX:
        raise UserError(
            f"that is {count} jobs, and at most {VALUES_MAX} are made at once", hint="try fewer values"
        )
    return [dict(zip(keys, values, strict=True)) for values in product(*(values for _, values in axes))]


def sweep_names(base: str, each: Sequence[dict[str, str]]) -> list[str]:
    """Return a name for each combination, made from its values; no two are alike."""
    names: list[str] = []
    for values in each:
        parts = [f"{key.rpartition('.')[2]}-{value.rpartition('/')[2]}" for key, value in values.items()]
        text = _NOT_IN_NAMES.sub("-", "-".join([base, *parts]).lower())
        names.append(free_name(text[: NAME_LENGTH_MAX - 5].rstrip("-."), names))
    return names
