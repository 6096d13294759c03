"""The routes of version 1. Each only translates between HTTP and the `Control` protocol."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Path, Query, Response

from trainerd.contract.clock import SystemClock
from trainerd.contract.names import NAME_LENGTH_MAX, NAME_PATTERN
from trainerd.contract.nearest import nearest_hint
from trainerd.supervisor.api.control import (
    DaemonView,
    EventView,
    GoodputView,
    JobView,
    OutcomeView,
    TrialView,
)
from trainerd.supervisor.api.http_errors import UnknownJobError, answer_problems, problem_responses
from trainerd.supervisor.api.metrics_answer import answer_metrics
from trainerd.supervisor.api.models import Done
from trainerd.supervisor.goodput.goodput_facts import RunFacts
from trainerd.version import VERSION

if TYPE_CHECKING:
    from trainerd.supervisor.api.control import Control
    from trainerd.supervisor.api.run_readings import RunReadings

EVENTS_MAX: Final = 1000
"""Most events in one answer."""
SEQUENCE_MAX: Final = 2**63 - 1

_SCHEMAS: Final = "#/components/schemas/"

JobName = Annotated[
    str, Path(pattern=f"^{NAME_PATTERN}$", max_length=NAME_LENGTH_MAX, description="name of the job")
]

_MISSING = problem_responses(HTTPStatus.NOT_FOUND)
_BUSY = problem_responses(HTTPStatus.SERVICE_UNAVAILABLE)
_REFUSED = problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)


def create_app(control: Control, *, readings: RunReadings | None = None) -> FastAPI:
    """Return the API as an ASGI application. Its routes run on the event loop, never in a thread.

    Args:
        control: The supervisor.
        readings: What is read of runs beyond the views; without them there are no metrics.
    """
    app = _Api(
        title="trainerd",
        version=VERSION,
        summary="What the supervisor lets its interfaces see and ask for.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # the page would fetch its scripts from elsewhere
        redoc_url=None,
    )
    answer_problems(app)
    _add_views(app, control)
    _add_requests(app, control)
    _add_goodput(app, control, readings)
    if readings is not None:
        _add_metrics(app, control, readings)
    return app


class _Api(FastAPI):
    """The application, with each schema of its OpenAPI document under its title.

    The classes' names are ours.
    """

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            names = {name: schema["title"] for name, schema in schemas.items()}
            document["components"]["schemas"] = {names[name]: schema for name, schema in schemas.items()}
            _rename_references(
                document, {f"{_SCHEMAS}{old}": f"{_SCHEMAS}{new}" for old, new in names.items()}
            )
        return super().openapi()


def _rename_references(part: Any, names: dict[str, str]) -> None:
    if isinstance(part, dict) and isinstance(part.get("$ref"), str):
        part["$ref"] = names[part["$ref"]]
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _rename_references(inner, names)


def _add_views(app: FastAPI, control: Control) -> None:
    @app.get("/v1/daemon")
    async def describe_daemon() -> DaemonView:
        """Describe the supervisor."""
        return control.daemon()

    @app.get("/v1/jobs")
    async def list_jobs() -> list[JobView]:
        """Describe every job, by name."""
        await control.observe()
        return list(control.list_jobs())

    @app.get("/v1/jobs/{name}", responses=_MISSING)
    async def describe_job(name: JobName) -> JobView:
        """Describe one job."""
        await control.observe(name)
        return _existing(control, name)

    @app.get("/v1/jobs/{name}/outcomes", responses=_MISSING)
    async def list_outcomes(name: JobName) -> list[OutcomeView]:
        """Say how each attempt of a job ended, oldest first."""
        _existing(control, name)
        return list(control.list_outcomes(name))

    @app.get("/v1/events", responses=problem_responses())
    async def list_events(
        after: Annotated[int, Query(ge=0, le=SEQUENCE_MAX, description="only later ones")] = 0,
        job: Annotated[
            str | None,
            Query(pattern=f"^{NAME_PATTERN}$", max_length=NAME_LENGTH_MAX, description="only about this job"),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=EVENTS_MAX, description="at most so many")] = 200,
    ) -> list[EventView]:
        """Return what happened after the event with sequence number `after`, oldest first."""
        return list(control.list_events(job=job, after=after, limit=limit))


def _add_goodput(app: FastAPI, control: Control, readings: RunReadings | None) -> None:
    @app.get("/v1/jobs/{name}/goodput", responses=_MISSING)
    async def describe_goodput(name: JobName) -> GoodputView:
        """Say where the time of a job's run went, every second in one bucket."""
        view = _existing(control, name)
        summary = (await readings.summaries([view])).get(name) if readings is not None else None
        goodput = (summary.facts if summary is not None else RunFacts()).goodput(SystemClock().wall_s())
        return GoodputView(job=name, **asdict(goodput))


def _add_metrics(app: FastAPI, control: Control, readings: RunReadings) -> None:
    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return await answer_metrics(control, readings)


def _add_requests(app: FastAPI, control: Control) -> None:
    @app.post("/v1/jobs/{name}/stop", responses=_REFUSED)
    async def stop_job(name: JobName, now: bool = False) -> JobView:
        """Drain a job and keep it stopped until it is resumed. The request is durable when this answers.

        With `now`, its ranks are asked twice: they save what they hold and leave without finishing the step.
        """
        _existing(control, name)
        return await control.stop(name, now=now)

    @app.post("/v1/jobs/{name}/resume", responses=_REFUSED)
    async def resume_job(name: JobName) -> JobView:
        """Let a stopped, parked, paused or backing-off job go on now. Durable when this answers."""
        _existing(control, name)
        return await control.resume(name)

    @app.post("/v1/jobs/{name}/hold", responses=_REFUSED)
    async def hold_job(name: JobName) -> JobView:
        """Launch nothing of a job until it is resumed, and drain it if it runs. Durable when this answers."""
        _existing(control, name)
        return await control.hold(name)

    @app.post("/v1/jobs/{name}/retry", responses=_REFUSED)
    async def retry_job(name: JobName) -> JobView:
        """Try a parked, rejected or waiting job again with a full budget. Durable when this answers."""
        _existing(control, name)
        return await control.retry(name)

    @app.get("/v1/jobs/{name}/restartable", responses=_REFUSED)
    async def check_restart(name: JobName) -> JobView:
        """Tell whether a job could be started again; one that runs, once it is stopped. Changes nothing."""
        _existing(control, name)
        return control.check_restart(name)

    @app.post("/v1/jobs/{name}/restart", responses=_REFUSED)
    async def restart_job(
        name: JobName,
        fresh: Annotated[bool, Query(description="its run was moved aside: a new one begins")] = False,
    ) -> JobView:
        """Start a job at rest again, also a complete one, with a full budget. Durable when this answers."""
        _existing(control, name)
        return await control.restart(name, is_fresh=fresh)

    @app.post("/v1/hold", responses=_BUSY)
    async def hold_all() -> DaemonView:
        """Drain every job and start none until released. Durable when this answers."""
        return await control.hold_all()

    @app.post("/v1/release", responses=_BUSY)
    async def release_all() -> DaemonView:
        """Start jobs again; those that were held or stopped one by one stay so."""
        return await control.release_all()

    @app.post(
        "/v1/reload",
        status_code=HTTPStatus.ACCEPTED,
        responses=problem_responses(HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE),
    )
    async def reload() -> Done:
        """Start the supervisor's program again in place. It has yet to happen when this answers."""
        await control.reload()
        return Done()

    @app.post("/v1/notify-test", responses=problem_responses(HTTPStatus.CONFLICT))
    async def test_hooks(
        name: Annotated[
            str | None,
            Query(
                pattern=f"^{NAME_PATTERN}(#[0-9]+)?$",
                max_length=NAME_LENGTH_MAX + 8,
                description="a hook or a job; all hooks of the configuration if absent",
            ),
        ] = None,
    ) -> list[TrialView]:
        """Deliver a test notice to hooks, once, and tell how that went."""
        return list(await control.test_hooks(name))

    @app.post("/v1/rescan", responses=_BUSY)
    async def rescan() -> Done:
        """Look at the jobs folder now. Every settled spec is acknowledged when this answers."""
        await control.rescan()
        return Done()


def _existing(control: Control, name: str) -> JobView:
    view = control.get_job(name)
    if view is None:
        known = [job.name for job in control.list_jobs()]
        raise UnknownJobError(f"no job {name!r}", hint=nearest_hint(name, known))
    return view
