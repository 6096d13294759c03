"""Version 1 of the HTTP API: each route, what it refuses, and the form of every error."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math

import httpx
import pytest

from tests.support.fake_control import CRASH, MNIST, FakeControl, job
from trainerd.contract.codec import to_plain
from trainerd.errors import CorruptError, SpaceError
from trainerd.supervisor.api.app import create_app
from trainerd.supervisor.api.control import DaemonView, EventView, JobView, OutcomeView


@pytest.fixture
def control():
    control = FakeControl(MNIST, job("done", "finished"))
    control.outcomes["mnist"] = (CRASH,)
    control.events = [EventView(number, 5.0, "mnist", "job.running", "runs") for number in range(1, 6)]
    return control


@pytest.fixture
def ask(control):
    transport = httpx.ASGITransport(create_app(control), raise_app_exceptions=False)

    def ask(method: str, path: str, **options) -> httpx.Response:
        async def once():
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, **options)

        return asyncio.run(once())

    return ask


def plain(view) -> dict:
    return json.loads(json.dumps(to_plain(view)))


def test_the_daemon_describes_itself(ask, control):
    assert ask("GET", "/v1/daemon").json() == plain(control.daemon())


def test_jobs_are_listed_by_name(ask):
    assert [one["name"] for one in ask("GET", "/v1/jobs").json()] == ["done", "mnist"]


def test_a_job_is_described_with_its_last_outcome(ask):
    assert ask("GET", "/v1/jobs/mnist").json() == plain(MNIST)


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_json_has_no_number_for_is_named(ask, control, value, text):
    control.jobs["mnist"] = dataclasses.replace(MNIST, loss=value)
    assert ask("GET", "/v1/jobs/mnist").json()["loss"] == text


def test_outcomes_are_listed_oldest_first(ask):
    assert ask("GET", "/v1/jobs/mnist/outcomes").json() == [plain(CRASH)]
    assert ask("GET", "/v1/jobs/done/outcomes").json() == []


@pytest.mark.parametrize(
    ("query", "sequences"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"after": 3}, [4, 5]),
        ({"limit": 2}, [1, 2]),
        ({"after": 1, "limit": 1, "job": "mnist"}, [2]),
        ({"job": "done"}, []),
    ],
)
def test_events_are_paged(ask, query, sequences):
    assert [event["sequence"] for event in ask("GET", "/v1/events", params=query).json()] == sequences


def test_the_data_of_an_event_may_hold_any_number(ask, control):
    control.events = [EventView(1, 5.0, None, "x", "x", {"loss": math.nan, "best": [math.inf, 1.5]})]
    assert ask("GET", "/v1/events").json()[0]["data"] == {"loss": "nan", "best": ["inf", 1.5]}


@pytest.mark.parametrize(
    ("path", "state", "call"),
    [
        ("/v1/jobs/mnist/stop", "stopped", ("stop", "mnist")),
        ("/v1/jobs/done/resume", "queued", ("resume", "done")),
        ("/v1/jobs/mnist/hold", "running", ("hold", "mnist")),
        ("/v1/jobs/done/retry", "queued", ("retry", "done")),
    ],
)
def test_a_request_answers_with_the_job_as_it_is_now(ask, control, path, state, call):
    response = ask("POST", path)
    assert (response.status_code, response.json()["state"]) == (200, state)
    assert control.calls == [call]


def test_a_rescan_is_passed_on(ask, control):
    assert ask("POST", "/v1/rescan").json() == {"ok": True}
    assert control.calls == [("rescan",)]


def test_the_supervisor_as_a_whole_is_held_released_and_reloaded(ask, control):
    assert ask("POST", "/v1/hold").json()["is_on_hold"] is True
    assert ask("POST", "/v1/release").json()["is_on_hold"] is False
    assert ask("POST", "/v1/reload").status_code == 202
    assert control.calls == [("hold_all",), ("release_all",), ("reload",)]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/mnits"),
        ("GET", "/v1/jobs/mnits/outcomes"),
        ("POST", "/v1/jobs/mnits/stop"),
        ("POST", "/v1/jobs/mnits/resume"),
        ("POST", "/v1/jobs/mnits/hold"),
        ("POST", "/v1/jobs/mnits/retry"),
    ],
)
def test_an_unknown_job_is_404_and_the_nearest_name_is_shown(ask, control, method, path):
    response = ask(method, path)
    assert response.status_code == 404
    assert response.json() == {"error": "no job 'mnits'", "hint": "did you mean 'mnist'?"}
    assert control.calls == []


def test_an_unknown_job_that_is_like_none_gets_the_list(ask):
    assert ask("GET", "/v1/jobs/zzz").json()["hint"] == "there are: done, mnist"


@pytest.mark.parametrize("path", ["/v1/jobs/done/stop", "/v1/jobs/mnist/resume"])
def test_a_request_that_does_not_fit_the_state_is_409(ask, path):
    response = ask("POST", path)
    assert response.status_code == 409
    assert set(response.json()) == {"error", "hint"}


@pytest.mark.parametrize(
    ("error", "status"), [(SpaceError("the disk is full"), 503), (CorruptError("the journal is torn"), 500)]
)
def test_other_errors_of_ours_say_whose_turn_it_is(ask, control, monkeypatch, error, status):
    async def refuse(_name, *, now=False):
        raise error

    monkeypatch.setattr(control, "stop", refuse)
    response = ask("POST", "/v1/jobs/mnist/stop")
    assert (response.status_code, response.json()["error"]) == (status, error.message)


def test_a_bug_is_500_without_its_details(ask, control, monkeypatch):
    monkeypatch.setattr(control, "list_jobs", lambda: 1 / 0)
    response = ask("GET", "/v1/jobs")
    assert response.status_code == 500
    assert response.json()["error"] == "the supervisor could not answer: ZeroDivisionError"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/jobs/UPPER", {}),
        ("/v1/jobs/" + "a" * 101, {}),
        ("/v1/jobs/a%0A", {}),
        ("/v1/jobs/-rf", {}),
        ("/v1/jobs/a%00b", {}),
        ("/v1/events", {"limit": 0}),
        ("/v1/events", {"limit": 1001}),
        ("/v1/events", {"limit": "all"}),
        ("/v1/events", {"after": -1}),
        ("/v1/events", {"after": 2**63}),
        ("/v1/events", {"job": "../../etc/passwd"}),
        ("/v1/events", {"job": "a" * 101}),
    ],
)
def test_input_out_of_bounds_is_422_and_named(ask, path, query):
    response = ask("GET", path, params=query)
    assert response.status_code == 422, response.text
    assert response.json()["error"].split(":")[0] in {"path.name", "query.limit", "query.after", "query.job"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/jobs/../../etc/passwd", 404),
        ("GET", "/v1/jobs/a%2Fb", 404),
        ("DELETE", "/v1/jobs/mnist", 405),
        ("GET", "/v1/jobs/mnist/stop", 405),
        ("GET", "/docs", 404),
    ],
)
def test_what_is_not_there_has_the_same_form_of_error(ask, method, path, status):
    response = ask(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"error", "hint"}


@pytest.mark.parametrize(
    ("schema", "view"),
    [("Job", JobView), ("Outcome", OutcomeView), ("Event", EventView), ("Daemon", DaemonView)],
)
def test_the_api_promises_every_field_that_the_supervisor_shows(ask, schema, view):
    """By its public name, always present, with no default that a client might come to rely on."""
    described = ask("GET", "/v1/openapi.json").json()["components"]["schemas"][schema]
    fields = [field.name for field in dataclasses.fields(view)]
    assert described["title"] == schema
    assert list(described["properties"]) == described["required"] == fields
    assert not any("default" in field for field in described["properties"].values())


def test_the_openapi_document_has_every_route_with_its_errors_and_its_models(ask):
    document = ask("GET", "/v1/openapi.json").json()
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes == {
        ("get", "/v1/daemon"),
        ("get", "/v1/jobs"),
        ("get", "/v1/jobs/{name}"),
        ("get", "/v1/jobs/{name}/outcomes"),
        ("get", "/v1/jobs/{name}/goodput"),
        ("get", "/v1/events"),
        ("post", "/v1/jobs/{name}/stop"),
        ("post", "/v1/jobs/{name}/resume"),
        ("post", "/v1/jobs/{name}/hold"),
        ("post", "/v1/jobs/{name}/retry"),
        ("get", "/v1/jobs/{name}/restartable"),
        ("post", "/v1/jobs/{name}/restart"),
        ("post", "/v1/hold"),
        ("post", "/v1/release"),
        ("post", "/v1/reload"),
        ("post", "/v1/rescan"),
        ("post", "/v1/notify-test"),
    }
    stop = document["paths"]["/v1/jobs/{name}/stop"]["post"]
    assert stop["description"]
    assert set(stop["responses"]) == {"200", "404", "409", "422", "503"}
    assert stop["responses"]["409"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "/ProblemDetails"
    )
    assert stop["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Job")
