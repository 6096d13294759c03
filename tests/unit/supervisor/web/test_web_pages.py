"""What the page shows, of ordinary and of hostile jobs."""

import asyncio
import dataclasses
import json
import threading
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from tests.support.fake_control import CRASH, NOW_S, job
from tests.support.watched_run import BACK_TO, HOSTILE, LOST_TO, STEPS, leave_run, pin_file
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.api import run_readings
from trainerd.supervisor.api.checkpoint_rows import CheckpointRow
from trainerd.supervisor.api.control import EventView, ReasonView
from trainerd.supervisor.api.metric_curve import Curves
from trainerd.supervisor.api.run_readings import RunReadings
from trainerd.supervisor.attempt.gpu_use import GpuUse
from trainerd.supervisor.bounded_io import BoundedIo

WORDS = """
    html head meta title link script body header a nav span main footer p h1 h2 article div b small
    time progress svg polyline rect table thead tbody tr th td code section select label i details
    summary ul li pre form input button
"""
TAGS = frozenset(WORDS.split())


class Seen(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.handlers, self.scripts, self.text = set(), [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))

    def handle_data(self, data):
        self.text += data


def seen(answer, status=200):
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    found = Seen(answer.text)
    assert found.tags <= TAGS, found.tags - TAGS
    assert found.handlers == []
    assert all(source and "static/" in source for source in found.scripts)
    return found.text


def test_the_jobs_are_shown(page):
    leave_run(page.paths, "mnist")
    page.control.jobs["later"] = job("later", "backing-off", retry_at_wall_s=NOW_S + 98)
    answer = page.get("/")
    text = seen(answer)
    for word in (
        "mnist",
        "done",
        "running",
        "finished",
        "backing-off",
        "making progress",
        "13 %",
        "0.25",
        "Next try",
    ):
        assert word in text, word
    assert "<polyline points=" in answer.text, "a curve of the loss"
    assert 'href="./job/mnist"' in answer.text


def test_one_job_is_shown_with_all_that_is_known(page):
    run = leave_run(page.paths, "mnist")
    pin_file(run, "step-000000020")
    page.control.outcomes["mnist"] = (CRASH,)
    page.control.events = [EventView(1, NOW_S, "mnist", "job.running", "attempt 2 runs")]
    text = seen(page.get("/job/mnist"))
    for word in (
        "no more cheese", "rank 0 exited with 1", "run again at once", "exact: 10 steps run again",
        "changed-code", "lost steps", "epoch 0 begins", "attempt 2 runs", "job.running",
    ):  # fmt: skip
        assert word in text, word


def test_a_job_with_nothing_known_is_shown_too(page):
    page.control.jobs["new"] = job("new", "queued", attempt=0)
    text = seen(page.get("/job/new"))
    for word in (
        "never resumed",
        "has not begun",
        "No attempt has ended",
        "There is none yet",
        "printed nothing",
    ):
        assert word in text, word


def test_checkpoints_have_scores_and_pins(page, monkeypatch):
    row = CheckpointRow(
        "step-000000020", 20, 1, NOW_S, 2048, "periodic", (("accuracy", 0.91),), "the best so far"
    )
    monkeypatch.setattr(run_readings, "checkpoint_rows", lambda run: (row,))
    text = seen(page.get("/job/mnist"))
    for word in ("step-000000020", "periodic", "2.0 KiB", "accuracy 0.91", "pinned", "the best so far"):
        assert word in text, word
    assert page.get("/job/mnist/curve.json").json()["checkpoints"] == [20]


def test_a_damaged_checkpoint_is_shown_with_what_is_wrong(page):
    folder = page.paths.run("mnist").checkpoints / "step-000000005"
    folder.mkdir(parents=True)
    text = seen(page.get("/job/mnist"))
    assert "step-000000005" in text
    assert "manifest" in text


def test_the_newest_checkpoint_of_a_job_is_the_newest_that_can_be_read(page, monkeypatch):
    rows = CheckpointRow("step-000000030", -1, reason="no manifest"), CheckpointRow("b", 20, 1, NOW_S, 2048)
    monkeypatch.setattr(run_readings, "checkpoint_rows", lambda run: rows)
    text = seen(page.get("/"))
    assert "step 20, " in text
    assert "step -1" not in text


def test_what_was_not_read_is_not_said_to_be_missing(page, monkeypatch):
    def fails(*_arguments):
        raise OSError

    monkeypatch.setattr(run_readings, "checkpoint_rows", fails)
    text = seen(page.get("/job/mnist"))
    assert "They cannot be read" in text
    assert "There is none yet" not in text
    assert "trainerd_job_checkpoint_bytes" not in page.get("/metrics").text
    monkeypatch.setattr(run_readings, "read_facts", fails)
    text = seen(page.get("/job/mnist"))
    assert text.count("Not read yet") == 2
    assert "has not begun" not in text


def test_events_are_newest_first(page):
    page.control.events = [EventView(n, NOW_S, "mnist", "job.x", f"reason {n}") for n in (1, 2, 3)]
    text = seen(page.get("/events"))
    assert text.index("reason 3") < text.index("reason 1")


def test_of_many_events_the_newest_are_shown(page):
    page.control.events = [EventView(n, NOW_S, "mnist", "job.x", f"reason {n}.") for n in range(1, 501)]
    for path, count in (("/events", 200), ("/job/mnist", 30)):
        text = seen(page.get(path))
        assert f"reason {501 - count}." in text
        assert f"reason {500 - count}." not in text


def test_the_curve_has_lost_rows_and_restarts_apart(page):
    leave_run(page.paths, "mnist")
    curve = page.get("/job/mnist/curve.json").json()
    assert (curve["name"], curve["names"]) == ("loss", ["loss", "lr"])
    assert curve["x"] == list(range(1, STEPS + 1))
    assert None not in curve["kept"]
    lost = [step for step, value in zip(curve["x"], curve["lost"], strict=True) if value is not None]
    assert lost == list(range(BACK_TO + 1, LOST_TO + 1))
    assert curve["restarts"] == [[2, BACK_TO]]
    assert page.get("/job/mnist/curve.json?name=lr").json()["name"] == "lr"
    assert page.get("/job/mnist/curve.json?name=nope").json()["name"] == "loss"


HOSTILE_TEXTS = (
    HOSTILE,
    "</pre><img src=x onerror=alert(1)>",
    "{{ 7919 * 7907 }}",
    "\u202egnp.exe",
    "'\"><svg onload=x>",
)


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_what_a_job_says_is_never_markup(page, text):
    """Reasons, evidence, verdicts, events, log lines, names of metrics: a job can write anything there."""
    run = leave_run(page.paths, "mnist", metric=text)
    run.rank_log(0).write_text(text)
    page.control.jobs["mnist"] = job(
        "mnist",
        reason=text,
        phase=text,
        resume=text,
        resume_verdict=text,
        resume_reasons=(ReasonView(text, text, text, text),),
        spec_path=text,
    )
    import dataclasses

    page.control.outcomes["mnist"] = (
        dataclasses.replace(CRASH, kind=text, reason=text, evidence=(text,), next_action=text),
    )
    page.control.events = [EventView(1, NOW_S, "mnist", text, text)]
    page.control.daemon_view = dataclasses.replace(
        page.control.daemon_view, journal_problem=text, state_dir=text, is_on_hold=True
    )
    for path in ("/", "/job/mnist", "/events", "/job/mnist?fragment=1"):
        shown = seen(page.get(path))
        assert "62615533" not in shown
    curve = page.get("/job/mnist/curve.json")
    assert curve.headers["content-type"] == "application/json"
    assert len(json.loads(curve.text)["names"]) == 2


@pytest.mark.parametrize("name", ["<script>", "..", "a" * 5000, "%00", "\u202e"], ids=range(5))
def test_a_name_that_is_no_job_is_not_shown(page, name):
    answer = page.get(f"/job/{name}")
    assert answer.status_code == 404 or answer.url.path in {"/", "/job/"}
    assert "<script>alert" not in answer.text
    assert page.get(f"/job/{name}/curve.json").status_code == 404


def test_a_fragment_is_the_part_that_changes_alone(page):
    fragment = page.get("/job/mnist?fragment=1").text
    assert "<html" not in fragment
    assert "<script" not in fragment
    assert fragment.strip() in page.get("/job/mnist").text or "ago" in fragment


def test_nothing_is_fetched_from_elsewhere(page):
    static = ("page.js", "page.css", "uplot.js", "uplot.css", "icon.svg")
    for path in ("/", "/job/mnist", "/events", *(f"/static/{name}" for name in static)):
        text = (
            page.get(path)
            .text.replace("https://github.com/leeoniya/uPlot", "")
            .replace("http://www.w3.org/", "")
        )
        assert "http://" not in text, path
        assert "https://" not in text, path
    assert "MIT" in page.get("/static/uplot-license.txt").text
    assert page.get("/static/..%2fpage_views.py").status_code == 404


def test_metrics_are_on_the_page_too(page):
    assert "trainerd_job_step" in page.get("/metrics").text


def test_a_history_that_is_read_for_long_does_not_keep_the_supervisor_from_the_folder(tmp_path, monkeypatch):
    """A call that hangs bars all others under its key."""
    release = threading.Event()
    monkeypatch.setattr(run_readings, "read_curves", lambda path: release.wait(10))
    paths, io = StatePaths(tmp_path), BoundedIo(limit_s=0.05)

    async def look():
        assert await RunReadings(paths, io).curves("mnist") == Curves()
        assert io.hung
        found = await io.observe(paths.run("mnist").root, lambda: "seen")
        release.set()
        return found

    assert asyncio.run(look()) == "seen"


def test_the_gpus_of_a_job_are_shown_with_their_use(page):
    page.control.jobs["mnist"] = dataclasses.replace(page.control.jobs["mnist"], gpus=(3,))
    for path in ("/", "/job/mnist"):
        assert "GPU" not in page.get(path).text  # no NVML here: nothing is made up
    uses = (GpuUse(3, 0.87, 10 << 30, 80 << 30),)
    page.gpus = SimpleNamespace(read=lambda indices: uses if indices == (3,) else ())
    for path in ("/", "/job/mnist"):
        text = page.get(path).text
        assert text.count("<b>GPU 3</b>") == 1
        assert "87 % <small>10.0 GiB of 80.0 GiB</small>" in text
    metrics = page.get("/metrics").text
    assert 'trainerd_job_gpu_busy_ratio{gpu="3",job="mnist"} 0.87' in metrics
    assert 'trainerd_job_gpu_memory_bytes{gpu="3",job="mnist"}' in metrics


def test_a_machine_that_is_about_to_be_taken_is_said_on_every_page(page):
    said = "draining: AWS takes this machine at 12:00:10 UTC <b>"
    page.control.daemon_view = dataclasses.replace(page.control.daemon_view, preemption=said)
    for path in ("/", "/job/mnist", "/events"):
        assert "Preemption: draining: AWS takes this machine at 12:00:10 UTC &lt;b&gt;" in page.get(path).text
