"""Signals at which a verb leaves as it does at Ctrl-C, and ends on its way out what it has started."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_STOPPING: Final = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def leaving_on_stop_signals() -> Iterator[None]:
    """Raise SystemExit within a block where SIGTERM or SIGHUP comes; one that is ignored stays so."""
    former = {each: signal.getsignal(each) for each in _STOPPING}
    handled = [each for each in _STOPPING if former[each] is not signal.SIG_IGN]
    for each in handled:
        signal.signal(each, _leave)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, former[each])


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
