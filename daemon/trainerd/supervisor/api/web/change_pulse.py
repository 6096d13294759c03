"""Tells open pages that something has changed, by server-sent events.

However many pages are open, jobs are looked at once a second, in memory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trainerd.supervisor.api.control import Control

LOOK_S: Final = 1.0
"""How often it is looked whether something has changed, in seconds."""

SILENCE_MAX_S: Final = 15.0
"""After so long, in seconds, a stream says that it is still there."""

STREAMS_MAX: Final = 32
"""How many streams are open at once."""


class ChangePulse:
    """What changes when anything on the page does.

    Args:
        control: The supervisor.
        stop: Ends all streams.
    """

    def __init__(self, control: Control, stop: asyncio.Event) -> None:
        self._control = control
        self._stop = stop
        self._number = 0
        self._mark: object = None
        self._looked_at_s = -LOOK_S
        self.streams = 0

    @property
    def is_full(self) -> bool:
        return self.streams >= STREAMS_MAX

    def number(self) -> int:
        """Return a number that rises with every change that was seen."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_at_s >= LOOK_S * 0.9:
            self._looked_at_s = now_s
            mark = self._control.daemon(), tuple(map(_mark_of, self._control.list_jobs()))
            if mark != self._mark:
                self._mark = mark
                self._number += 1
        return self._number

    async def stream(self) -> AsyncIterator[str]:
        """Yield the lines of one stream until the supervisor stops."""
        self.streams += 1
        try:
            yield "retry: 3000\n\n"
            said, silent_s = -1, 0.0
            while not self._stop.is_set():
                number = self.number()
                if number != said:
                    said, silent_s = number, 0.0
                    yield f"event: change\ndata: {number}\n\n"
                elif silent_s >= SILENCE_MAX_S:
                    silent_s = 0.0
                    yield ": here\n\n"
                silent_s += LOOK_S
                try:
                    await asyncio.wait_for(self._stop.wait(), LOOK_S)
                except TimeoutError:
                    continue
        finally:
            self.streams -= 1


def _mark_of(job: object) -> object:
    names = ("name", "state", "reason", "attempt", "phase", "step", "checkpoint_step", "is_held")
    return tuple([getattr(job, name) for name in names])
