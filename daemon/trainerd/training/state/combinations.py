"""Whether values are made of what they were: a combination of vectors, found by least squares."""

from __future__ import annotations

import itertools
from typing import Final

import torch

_ROUNDINGS: Final = 16
_MISSED_MAX: Final = 0.06
"""A combination of values of low precision misses by so much of their length at most."""
_MARGIN: Final = 32
"""So many times what counts as rounding a combination has to miss by to count as none, or by `_NONE_MAX`."""
_NONE_MAX: Final = 0.25
_COARSE: Final = 1e-4
"""With more rounding than this, few elements tell nothing."""
ELEMENTS_ENOUGH: Final = 16


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of the values in float64 in host memory."""
    return tensor.detach().to("cpu", torch.float64, copy=True)


def rounding_of(dtype: torch.dtype) -> float:
    """Return the relative error that counts as none in values of a dtype."""
    return min(_ROUNDINGS * torch.finfo(dtype).eps, _MISSED_MAX)


def depends_on(
    former: torch.Tensor, after: torch.Tensor, families: list[list[torch.Tensor]], rounding: float
) -> bool:
    """Tell whether values are a combination of what they were and of others, and of neither alone. Pure.

    A multiple of what they were is none: batches of equal numbers are that of one another.

    Args:
        former: What they were, in float64, of shape [n].
        after: What they are, of shape [n].
        families: What else they may be made of, each time together: vectors of shape [n].
        rounding: Relative error that counts as none.
    """
    scale = float(torch.maximum(former.norm(), after.norm()))
    if not 0 < scale < float("inf") or (rounding > _COARSE and after.numel() < ELEMENTS_ENOUGH):
        return False
    sets: list[list[torch.Tensor]] = [[]]
    for family in families:
        columns = [each for each in family if bool(each.isfinite().all())]
        sizes = [size for size in (1, 2) if after.numel() > size + 1]
        sets += [list(chosen) for size in sizes for chosen in itertools.combinations(columns, size)]
        if after.numel() > 2 * len(columns):
            sets.append(columns)
    alone = [[former], *sets]
    if any(missed_by(after, chosen) <= min(_MARGIN * rounding, _NONE_MAX) * scale for chosen in alone):
        return False
    return any(missed_by(after, [former, *chosen]) <= rounding * scale for chosen in sets)


def missed_by(target: torch.Tensor, columns: list[torch.Tensor]) -> float:
    """Return the distance of a vector from the nearest combination of others, all of shape [n]."""
    used = [each / length for each in columns if (length := float(each.norm())) > 0]
    if not used:
        return float(target.norm())
    matrix = torch.stack(used, dim=1)
    solution = torch.linalg.lstsq(matrix, target.unsqueeze(1), driver="gelsd").solution
    return float((matrix @ solution - target.unsqueeze(1)).norm())
