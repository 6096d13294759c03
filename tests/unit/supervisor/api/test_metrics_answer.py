"""`GET /metrics` as Prometheus reads it: parsed with prometheus_client's own parser."""

import asyncio
import dataclasses
import json
import re
import threading
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fake_control import MNIST, FakeControl, job
from tests.support.watched_run import BACK_TO, leave_run
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import ExitRecord, RankExit
from trainerd.supervisor.api.app import create_app
from trainerd.supervisor.api.run_readings import RunReadings
from trainerd.supervisor.bounded_io import BoundedIo


@pytest.fixture
def paths(tmp_path):
    return StatePaths(tmp_path)


def scrape(control, paths):
    async def ask():
        app = create_app(control, readings=RunReadings(paths, BoundedIo(limit_s=0.2)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.get("/metrics")

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def of_job(found, name, **labels):
    return found.get((f"trainerd_job_{name}", tuple(sorted({"job": "mnist", **labels}.items()))))


def test_numbers_of_a_job_that_died_and_came_back(paths):
    run = leave_run(paths, "mnist")
    run.attempt(1).root.mkdir()
    exited = ExitRecord((RankExit(0, exit_code=1),), 1e9, 1e9 + 60, 60.0, boot_id="b")
    records.write(run.attempt(1).exit, exited)
    control = FakeControl(MNIST, job("cifar", "parked"))
    control.daemon_view = dataclasses.replace(control.daemon_view, jobs_by_state={"running": 1, "parked": 1})
    found = scrape(control, paths)
    states = {
        dict(labels)["state"]: value for (name, labels), value in found.items() if name == "trainerd_jobs"
    }
    assert {state for state, count in states.items() if count} == {"running", "parked"}
    assert len(states) == 11, "those without a job are zero and not missing"
    assert of_job(found, "state", state="running") == 1
    assert of_job(found, "attempts_total") == 2
    assert of_job(found, "endings_total", kind="crashed") == 1
    assert (of_job(found, "step"), of_job(found, "loss")) == (130, 0.25)
    assert of_job(found, "saves_total") == 3
    assert of_job(found, "save_durable_seconds") == 1.5
    buckets = [value for (name, labels), value in found.items() if name == "trainerd_job_goodput_seconds"]
    assert len(buckets) == 7
    assert sum(buckets) == pytest.approx(of_job(found, "wall_seconds"), rel=1e-3)
    assert of_job(found, "goodput_seconds", bucket="starting") >= 60, "the first attempt opened no session"


def test_lost_steps_are_those_between_death_and_checkpoint(paths):
    leave_run(paths, "mnist")
    first = paths.run("mnist").attempt(1)
    second = paths.run("mnist").attempt(2).heartbeat(0).read_bytes()
    first.root.mkdir()
    # The first attempt came to step 28, having begun at 0.
    import struct

    page = bytearray(second)
    struct.pack_into("<q", page, 32, 28)
    struct.pack_into("<q", page, 16 + 8 + 8 * 8 + 8, 0)
    first.heartbeat(0).write_bytes(bytes(page))
    assert of_job(scrape(FakeControl(MNIST), paths), "lost_steps_total") == 28 - BACK_TO


def test_what_is_not_known_is_left_out_and_not_zero(paths):
    found = scrape(FakeControl(job("mnist", "queued", attempt=0)), paths)
    assert of_job(found, "attempts_total") == 0
    for name in ("loss", "step", "checkpoint_age_seconds", "save_durable_seconds", "wall_seconds"):
        assert of_job(found, name) is None, name


def test_a_run_folder_that_hangs_does_not_stop_the_others(paths, monkeypatch):
    leave_run(paths, "mnist")
    leave_run(paths, "slow")
    release = threading.Event()
    from trainerd.supervisor.api import run_readings

    read = run_readings.read_facts

    def reads(where, name):
        if name == "slow":
            release.wait(20)
        return read(where, name)

    monkeypatch.setattr(run_readings, "read_facts", reads)
    monkeypatch.setattr(run_readings, "ANSWER_WAIT_S", 10.0)
    found = scrape(FakeControl(MNIST, job("slow")), paths)
    release.set()
    assert of_job(found, "wall_seconds") is not None
    assert ("trainerd_job_step_seconds", (("job", "slow"),)) not in found
    assert ("trainerd_job_attempts_total", (("job", "slow"),)) in found, "its view is known"


def test_the_dashboard_asks_only_for_numbers_that_there_are():
    from trainerd.supervisor.api import prometheus_page

    source = Path(prometheus_page.__file__).read_text()
    made = {f"trainerd_{name}" for name in re.findall(r'\.(?:gauge|counter)\(\s*"(\w+)"', source)}
    made |= {f"trainerd_{name}_total" for name in re.findall(r'\.counter\(\s*"(\w+)"', source)}
    dashboard = json.loads((Path(__file__).parents[4] / "docs/grafana/trainerd.json").read_text())
    asked = set(re.findall(r"trainerd_\w+", json.dumps(dashboard["panels"])))
    assert asked
    assert asked <= made
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_goodput_is_answered_by_the_api(paths):
    leave_run(paths, "mnist")

    async def ask(name):
        app = create_app(FakeControl(MNIST), readings=RunReadings(paths, BoundedIo(limit_s=5.0)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.get(f"/v1/jobs/{name}/goodput")

    found = asyncio.run(ask("mnist")).json()
    assert found["job"] == "mnist"
    assert found["wall_s"] > 0
    assert sum(found["buckets"].values()) == pytest.approx(found["wall_s"], rel=1e-3)
    assert asyncio.run(ask("cifar")).status_code == 404
