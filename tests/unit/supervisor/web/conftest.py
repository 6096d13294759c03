"""The page's application, asked without a network."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.support.fake_control import MNIST, FakeControl, job
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.api.run_readings import RunReadings
from trainerd.supervisor.api.web.web_access import WebAccess
from trainerd.supervisor.api.web.web_app import create_web_app
from trainerd.supervisor.attempt.gpu_use import GpuUseReader
from trainerd.supervisor.bounded_io import BoundedIo

TOKEN = "correct-horse-battery-staple"
HOME = "http://127.0.0.1:7878"


class Page:
    """The page of a supervisor that is what it is told to be."""

    def __init__(self, control: FakeControl, paths: StatePaths, access: WebAccess) -> None:
        self.control, self.paths, self.access = control, paths, access
        self.gpus: GpuUseReader | None = None

    def ask(self, method: str, path: str, *, has_token: bool = True, **named) -> httpx.Response:
        async def request() -> httpx.Response:
            readings = RunReadings(self.paths, BoundedIo(limit_s=5.0), gpus=self.gpus)
            app = create_web_app(self.control, readings, self.access, stop=asyncio.Event())
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOME) as client:
                headers = {"authorization": f"Bearer {TOKEN}"} if has_token else {}
                return await client.request(method, path, headers=headers | named.pop("headers", {}), **named)

        return asyncio.run(request())

    def get(self, path: str, **named) -> httpx.Response:
        return self.ask("GET", path, **named)


@pytest.fixture
def page(tmp_path):
    control = FakeControl(MNIST, job("done", "finished", attempt=3))
    return Page(control, StatePaths(tmp_path), WebAccess(TOKEN, port=7878))
