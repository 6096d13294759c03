"""What hangs is given up after its limit, once, and takes nothing else with it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from trainerd.supervisor.bounded_io import BoundedIo, NotObservedError

LIMIT_S = 0.05


class Gate:
    """A filesystem that hangs until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        assert self.opened.wait(60)
        return "late"


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


def test_what_hangs_is_not_observed_and_not_asked_again_until_it_answers(gate):
    async def run():
        io = BoundedIo(limit_s=LIMIT_S)
        for _ in range(3):
            with pytest.raises(NotObservedError, match="runs/ant"):
                await io.observe("runs/ant", gate)
        assert (gate.calls, io.hung) == (1, {"runs/ant"})
        assert await io.observe("runs/bee", lambda: "there") == "there"
        gate.opened.set()
        while io.hung:  # noqa: ASYNC110 - threads make no events
            await asyncio.sleep(0.001)
        assert await io.observe("runs/ant", gate) == "late"

    asyncio.run(run())


def test_a_sweep_leaves_out_what_hangs_or_fails_and_makes_the_rest(gate):
    def fails():
        raise OSError(5, "input/output error")

    async def run():
        io = BoundedIo(limit_s=LIMIT_S)
        calls = {"ant": lambda: 1, "bee": gate, "cat": fails, "dog": lambda: 4}
        assert await io.sweep(calls) == {"ant": 1, "dog": 4}
        assert await io.sweep(calls) == {"ant": 1, "dog": 4}
        assert gate.calls == 1
        gate.opened.set()

    asyncio.run(run())


def test_a_sweep_that_is_slow_and_moves_is_not_given_up():
    async def run():
        io = BoundedIo(limit_s=LIMIT_S)
        pause = threading.Event()
        calls = {number: lambda number=number: pause.wait(LIMIT_S / 5) or number for number in range(20)}
        assert await io.sweep(calls) == {number: number for number in range(20)}

    asyncio.run(run())


def test_the_threads_that_hang_are_bounded(gate):
    async def run():
        io = BoundedIo(limit_s=LIMIT_S, hung_max=2)
        assert await io.sweep(dict.fromkeys(range(10), gate)) == {}
        assert gate.calls == 2
        with pytest.raises(NotObservedError):
            await io.observe("other", lambda: "there")
        gate.opened.set()

    asyncio.run(run())


def test_a_bug_in_an_observation_is_raised():
    async def run():
        with pytest.raises(ZeroDivisionError):
            await BoundedIo().sweep({"ant": lambda: 1 // 0})

    asyncio.run(run())


def test_an_act_has_no_limit_and_is_waited_for_at_the_end(gate):
    async def run():
        io = BoundedIo(limit_s=60)
        act = asyncio.create_task(io.act(gate))
        while not gate.calls:  # noqa: ASYNC110 - threads make no events
            await asyncio.sleep(0.001)
        act.cancel()
        asyncio.get_running_loop().call_later(LIMIT_S, gate.opened.set)
        await io.finish()
        assert gate.opened.is_set()

    asyncio.run(run())
