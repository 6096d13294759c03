"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_UNIT: Final = 1024
_LARGE_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")

NOTHING: Final = "-"
"""Stands where there is no value."""


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: 42s, 3m05s, 2h07m, 4d01h."""
    whole = max(0, int(seconds))
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m{whole % _MINUTE_S:02d}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h{whole % _HOUR_S // _MINUTE_S:02d}m"
    return f"{whole // _DAY_S}d{whole % _DAY_S // _HOUR_S:02d}h"


def size(count: int) -> str:
    """Return a number of bytes: 512 B, 1.5 KiB, 3.0 GiB."""
    if count < _UNIT:
        return f"{count} B"
    value = float(count)
    for unit in _LARGE_UNITS:
        value /= _UNIT
        if value < _UNIT or unit == _LARGE_UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError


def number(value: object) -> str:
    """Return a measured value in six significant digits, anything else as it is."""
    if value is None:
        return NOTHING
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def epochs_done(epoch: int | None, epochs: int | None, batch: int | None, batches: int | None) -> str:
    """Return how many epochs are done, of how many: 1.30/10 is in the second one."""
    if epoch is None:
        return NOTHING
    done = f"{epoch + batch / batches:.2f}" if batch is not None and batches else str(epoch)
    return f"{done}/{epochs}" if epochs is not None else done
