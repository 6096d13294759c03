"""An event loop whose time passes only when nothing is left to do at the present moment. No threads, no
descriptors.

Its calls are made in the order in which asyncio's own loops make them: what is due first, first.
"""

from __future__ import annotations

import asyncio
import contextvars
from heapq import heappop, heappush

RESOLUTION_S = 1e-9
"""What is due within this time of the present moment is due now."""


class SoonCall:
    """A call that is due now: what asyncio calls a handle."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(self, callback, args, context) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class TimedCall(float):
    """A call that is due at a time. It is that time: so a heap compares it without a call into Python."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    cancel = SoonCall.cancel
    cancelled = SoonCall.cancelled

    def when(self) -> float:
        return float(self)


class VirtualLoop(asyncio.BaseEventLoop):
    """Makes calls in the order of their times, from time 0.0 on. Calls in threads are made at once,
    inline."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def call_soon(self, callback, *args, context=None) -> SoonCall:
        call = SoonCall(callback, args, context or contextvars.copy_context())
        self._ready.append(call)
        return call

    call_soon_threadsafe = call_soon

    def call_later(self, delay, callback, *args, context=None) -> TimedCall:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None) -> TimedCall:
        call = TimedCall(when)
        call.callback = callback
        call.args = args
        call.context = context or contextvars.copy_context()
        call.is_cancelled = False
        heappush(self._scheduled, call)
        return call

    def run_until(self, moment_s: float) -> None:
        self.call_at(moment_s, self.stop)
        self.run_forever()

    def run_in_executor(self, _executor, function, *args) -> asyncio.Future:
        future = self.create_future()
        try:
            result = function(*args)
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def _run_once(self) -> None:
        """Make the calls that are due, and let time pass until others are, until the loop is told to stop."""
        ready, scheduled = self._ready, self._scheduled
        while True:
            while scheduled and scheduled[0].is_cancelled:
                heappop(scheduled)
            if not ready and not self._stopping:
                if not scheduled:
                    raise RuntimeError("nothing is scheduled: the simulation would wait for ever")
                if scheduled[0] > self._now_s:
                    self._now_s = scheduled[0].when()
            end_s = self._now_s + RESOLUTION_S
            while scheduled and scheduled[0] < end_s:
                ready.append(heappop(scheduled))
            for _ in range(len(ready)):
                call = ready.popleft()
                if not call.is_cancelled:
                    self._make(call)
            if self._stopping:
                return

    def _make(self, call) -> None:
        try:
            call.context.run(call.callback, *call.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio's loops do
            self.call_exception_handler({"message": f"in {call.callback}", "exception": error})

    def _process_events(self, _events) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
