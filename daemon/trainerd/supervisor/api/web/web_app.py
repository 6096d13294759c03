"""The routes of the page. All are read from the views and from what was read of the run folders."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import jinja2
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from trainerd.contract.clock import SystemClock
from trainerd.contract.names import NAME_LENGTH_MAX
from trainerd.contract.safe_text import safe_line
from trainerd.errors import TrainerdError
from trainerd.supervisor.api.metrics_answer import answer_metrics
from trainerd.supervisor.api.web import page_text
from trainerd.supervisor.api.web.change_pulse import ChangePulse
from trainerd.supervisor.api.web.page_views import JobCard, job_card
from trainerd.supervisor.api.web.web_access import WebAccess, WebGuard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from trainerd.supervisor.api.control import Control, JobView
    from trainerd.supervisor.api.run_readings import RunReadings, RunSummary

EVENTS_SHOWN: Final = 200
JOB_EVENTS_SHOWN: Final = 30
JOB_EVENTS_SEARCHED: Final = 3000
"""Among how many of the newest events those of a job are looked for."""
ATTEMPTS_SHOWN: Final = 50
FORM_BYTES_MAX: Final = 4096

_HERE: Final = Path(__file__).parent
_KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}


def create_web_app(
    control: Control, readings: RunReadings, access: WebAccess, *, stop: asyncio.Event
) -> ASGIApp:
    """Return the page as an ASGI application.

    Args:
        control: The supervisor.
        readings: What is read of runs beyond the views.
        access: Who may see it.
        stop: Ends its streams.
    """
    page = _Page(control, readings, access, ChangePulse(control, stop))
    routes = [
        Route("/", page.jobs),
        Route("/events", page.events),
        Route("/stream", page.stream),
        Route("/metrics", page.metrics),
        Route("/static/{name}", page.static),
        Route("/job/{name}", page.job),
        Route("/job/{name}/curve.json", page.curve),
        Route("/job/{name}/{action}", page.act, methods=["POST"]),
    ]
    return WebGuard(Starlette(routes=routes), access)


class _Page:
    """Answers the routes."""

    def __init__(
        self, control: Control, readings: RunReadings, access: WebAccess, pulse: ChangePulse
    ) -> None:
        self._control = control
        self._readings = readings
        self._access = access
        self._pulse = pulse
        self._static = {
            path.name: (path.read_bytes(), _KINDS[path.suffix]) for path in (_HERE / "static").iterdir()
        }
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Any] = {
            "duration": page_text.duration_text,
            "size": page_text.size_text,
            "number": page_text.number_text,
            "moment": page_text.moment_text,
        }
        self._templates.filters.update(filters)

    async def jobs(self, request: Request) -> Response:
        await self._control.observe()
        views = self._control.list_jobs()
        runs = await self._readings.summaries(views, is_all=True)
        cards = await asyncio.to_thread(_cards, views, runs, SystemClock().wall_s())
        return await self._rendered(request, "jobs.html", up="./", cards=cards)

    async def job(self, request: Request) -> Response:
        view = self._found(request)
        if view is None:
            return await self._missing(request)
        await self._control.observe(view.name)
        view = self._control.get_job(view.name) or view
        runs = await self._readings.summaries([view])
        outcomes = self._control.list_outcomes(view.name)[-ATTEMPTS_SHOWN:]
        last = self._control.daemon().last_event
        events = self._control.list_events(
            job=view.name,
            after=max(last - JOB_EVENTS_SEARCHED, 0),
            limit=JOB_EVENTS_SHOWN,
            is_newest=True,
        )
        return await self._rendered(
            request,
            "job.html",
            up="../",
            card=job_card(view, runs.get(view.name), SystemClock().wall_s()),
            outcomes=outcomes[::-1],
            events=events[::-1],
            log=await self._readings.log_tail(view.name),
            actions=_actions(view) if self._access.allows_actions else (),
            form_token=self._access.form_token,
        )

    async def events(self, request: Request) -> Response:
        events = self._control.list_events(limit=EVENTS_SHOWN, is_newest=True)
        return await self._rendered(request, "events.html", up="./", events=events[::-1])

    async def curve(self, request: Request) -> Response:
        view = self._found(request)
        if view is None:
            return Response(status_code=404)
        curves = await self._readings.curves(view.name)
        summary = (await self._readings.summaries([view])).get(view.name)
        names = sorted(curves.kept, key=lambda name: (name != "loss", name))
        asked = request.query_params.get("name", "")
        name = asked if asked in curves.kept else (names[0] if names else "")
        kept, lost = dict(curves.kept.get(name, ())), dict(curves.lost.get(name, ()))
        steps = sorted({*kept, *lost})
        shown = {
            "names": names,
            "name": name,
            "x": steps,
            "kept": [kept.get(step) for step in steps],
            "lost": [lost.get(step) for step in steps],
            "restarts": [[mark.attempt, mark.step] for mark in curves.restarts],
            "checkpoints": [row.step for row in summary.readable] if summary else [],
            "is_partial": curves.is_partial,
        }
        return JSONResponse(shown)

    async def stream(self, _request: Request) -> Response:
        if self._pulse.is_full:
            return Response(status_code=503, headers={"retry-after": "30"})
        return StreamingResponse(self._pulse.stream(), media_type="text/event-stream")

    async def metrics(self, _request: Request) -> Response:
        return await answer_metrics(self._control, self._readings)

    async def static(self, request: Request) -> Response:
        found = self._static.get(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        return Response(found[0], media_type=found[1], headers={"cache-control": "private, max-age=300"})

    async def act(self, request: Request) -> Response:
        acts: dict[str, Callable[[str], Awaitable[JobView]]] = {
            "stop": self._control.stop,
            "resume": self._control.resume,
            "hold": self._control.hold,
            "retry": self._control.retry,
            "restart": partial(self._control.restart, is_fresh=False),
        }
        view, act = self._found(request), acts.get(request.path_params["action"])
        if view is None or act is None:
            return await self._missing(request)
        if not self._access.is_form_token(await _form_field(request, "token")):
            return await self._problem(request, 403, "The form is an old one.", "Load the page again.")
        try:
            await act(view.name)
        except TrainerdError as error:
            return await self._problem(request, 409, safe_line(error.message), error.hint or "")
        return RedirectResponse(f"../{view.name}", 303)

    def _found(self, request: Request) -> JobView | None:
        name = request.path_params["name"]
        return self._control.get_job(name) if len(name) <= NAME_LENGTH_MAX else None

    async def _missing(self, request: Request) -> Response:
        return await self._problem(request, 404, "There is no such job.", "It may have been removed.")

    async def _problem(self, request: Request, status: int, message: str, hint: str) -> Response:
        up = "../" * (request.url.path.count("/") - 1) or "./"
        return await self._rendered(request, "problem.html", status=status, up=up, message=message, hint=hint)

    async def _rendered(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        layout = "bare.html" if "fragment" in request.query_params else "layout.html"
        context |= {"layout": layout, "daemon": self._control.daemon(), "now": SystemClock().wall_s()}
        render = partial(self._templates.get_template(template).render, **context)
        return HTMLResponse(await asyncio.to_thread(render), status)


def _cards(views: tuple[JobView, ...], runs: Mapping[str, RunSummary], now_wall_s: float) -> list[JobCard]:
    return [job_card(view, runs.get(view.name), now_wall_s) for view in views]


def _actions(view: JobView) -> tuple[str, ...]:
    """Return what makes sense to ask for in the state of a job."""
    if view.state in {"starting", "running"}:
        return ("stop", "hold")
    if view.is_held:
        return ("resume", "stop")
    by_state = {
        "queued": ("hold", "stop"),
        "backing-off": ("resume", "stop"),
        "paused": ("resume", "stop"),
        "stopped": ("resume", "restart"),
        "parked": ("retry", "restart"),
        "rejected": ("retry",),
        "faulted": ("resume",),
        "finished": ("restart",),
    }
    return by_state.get(view.state, ())


async def _form_field(request: Request, name: str) -> str:
    """Return a field of a small form, empty if it has none."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > FORM_BYTES_MAX:
            return ""
    return parse_qs(data.decode("latin-1")).get(name, [""])[0]
