"""Answers ``GET /metrics``: reads what is needed, and writes the page in a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from trainerd.contract.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainerd.supervisor.api.control import Control, DaemonView, JobView
    from trainerd.supervisor.api.run_readings import RunReadings, RunSummary


async def answer_metrics(control: Control, readings: RunReadings) -> Response:
    """Return the numbers of all jobs in Prometheus' text format."""
    await control.observe()
    jobs = control.list_jobs()
    runs = await readings.summaries(jobs, is_all=True)
    now_wall_s = SystemClock().wall_s()
    body, kind = await asyncio.to_thread(_page, control.daemon(), jobs, runs, now_wall_s)
    return Response(body, headers={"content-type": kind})


def _page(
    daemon: DaemonView, jobs: Sequence[JobView], runs: Mapping[str, RunSummary], now_wall_s: float
) -> tuple[bytes, str]:
    from trainerd.supervisor.api.prometheus_page import CONTENT_TYPE, prometheus_page

    return prometheus_page(daemon, jobs, runs, now_wall_s=now_wall_s), CONTENT_TYPE
