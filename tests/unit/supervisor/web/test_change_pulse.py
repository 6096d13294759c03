"""The stream that tells open pages of changes."""

import asyncio
import dataclasses

from tests.support.fake_control import MNIST, FakeControl
from trainerd.supervisor.api.web import change_pulse
from trainerd.supervisor.api.web.change_pulse import ChangePulse


def test_each_change_is_told_once_and_silence_is_filled(monkeypatch):
    monkeypatch.setattr(change_pulse, "LOOK_S", 0.01)
    monkeypatch.setattr(change_pulse, "SILENCE_MAX_S", 0.05)
    control = FakeControl(MNIST)

    async def watch():
        stop = asyncio.Event()
        pulse = ChangePulse(control, stop)
        stream = pulse.stream()
        told = [await anext(stream), await anext(stream), await anext(stream)]
        assert pulse.streams == 1
        control.jobs["mnist"] = dataclasses.replace(MNIST, step=131)
        told.append(await anext(stream))
        stop.set()
        assert [each async for each in stream] == [], "it ends with the supervisor"
        assert pulse.streams == 0
        return told

    first, change, silence, again = asyncio.run(watch())
    assert first == "retry: 3000\n\n"
    assert (change, silence, again) == (
        "event: change\ndata: 1\n\n",
        ": here\n\n",
        "event: change\ndata: 2\n\n",
    )


def test_jobs_are_looked_at_once_a_second_however_many_watch():
    control = FakeControl(MNIST)
    looks = []
    list_jobs = control.list_jobs
    control.list_jobs = lambda: looks.append(1) or list_jobs()

    async def watch():
        pulse = ChangePulse(control, asyncio.Event())
        for _ in range(50):
            pulse.number()

    asyncio.run(watch())
    assert len(looks) == 1
