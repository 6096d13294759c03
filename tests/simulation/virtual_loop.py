"""An event loop whose time passes only when nothing is left to do at the present moment. No threads, no
descriptors."""

from __future__ import annotations

import asyncio


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their times, from time 0.0 on. Calls in threads are made at once,
    inline."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now_s

    def select(self, timeout_s: float | None) -> list:
        """Stand in for the selector: nothing becomes readable, and time passes."""
        if timeout_s is None:
            raise RuntimeError("nothing is scheduled: the simulation would wait for ever")
        if timeout_s > 0:
            self._now_s = self._scheduled[0].when()
        return []

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

    def _process_events(self, _events) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
