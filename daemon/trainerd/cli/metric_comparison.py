"""Two runs beside each other: their last and best values, and the values after the same epochs."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from trainerd.cli.human import number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainerd.contract.metric_history import History

_PLACES: Final = frozenset({"step", "epoch", "batch", "report"})
_SMALL_IS_GOOD: Final = re.compile(r"loss|err|perplexity|ppl|mse|mae|rmse|nll|wer|cer", re.IGNORECASE)


def metric_names(history: History) -> list[str]:
    """Return what a run has measured or reported, by first appearance."""
    rows = (*history.rows, *history.reports)
    found = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    ordered = dict.fromkeys(key for row in rows for key in row)
    return [key for key in ordered if key in found and key not in _PLACES]


def rows_with(history: History, metric: str) -> list[dict[str, Any]]:
    """Return the rows that have a value of a metric, oldest first: steps if one has it, else reports."""
    rows = history.rows if any(metric in row for row in history.rows) else history.reports
    return [row for row in rows if isinstance(row.get(metric), int | float)]


def values_of(history: History, metric: str) -> list[float]:
    """Return all values of a metric, oldest first."""
    return [float(row[metric]) for row in rows_with(history, metric)]


def value_rows(first: History, second: History) -> list[tuple[str, ...]]:
    """Return a row for each metric: its name, the last value of each run, the best value of each.

    The smaller one is the better one for losses and errors, by their names, and the larger one otherwise.
    """
    names = dict.fromkeys([*metric_names(first), *metric_names(second)])
    rows = []
    for name in names:
        values = [values_of(first, name), values_of(second, name)]
        lasts = [number(each[-1] if each else None) for each in values]
        rows.append((name, *lasts, *(number(_best(name, each)) for each in values)))
    return rows


def _best(name: str, values: Iterable[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    return min(finite) if _SMALL_IS_GOOD.search(name) else max(finite)


def epoch_rows(first: History, second: History, metric: str | None) -> list[tuple[str, ...]]:
    """Return a row for each epoch that both runs have reached: its number, steps, a metric at its end."""
    ends = [_ends(first), _ends(second)]
    rows = []
    for epoch in sorted(ends[0].keys() & ends[1].keys()):
        each = [end[epoch] for end in ends]
        row = [str(epoch), *(number(one.get("step")) for one in each)]
        rows.append((*row, *(number(one.get(metric)) for one in each if metric is not None)))
    return rows


def _ends(history: History) -> dict[int, dict[str, Any]]:
    """Return the last row of each epoch."""
    return {row["epoch"]: row for row in history.rows if isinstance(row.get("epoch"), int)}
