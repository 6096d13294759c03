"""What a log line says."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import pytest
import structlog

from trainerd.supervisor.log.logger import configure_logging


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "logs" / "trainerd.jsonl"


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_begins_with_time_level_event_job_and_attempt(log_path):
    with configure_logging(log_path, stream=None):
        structlog.get_logger().info("job.running", step=3, attempt=2, job="mnist", reason="all is well")
    (line,) = lines_of(log_path)
    assert list(line) == ["ts", "level", "event", "job", "attempt", "step", "reason"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "info",
        "event": "job.running",
        "job": "mnist",
        "attempt": 2,
        "step": 3,
        "reason": "all is well",
    }


def test_every_line_is_strict_json_whatever_it_holds(log_path):
    with configure_logging(log_path, stream=None):
        structlog.get_logger().info(
            "odd", loss=float("nan"), best=[float("-inf")], path=Path("/x"), text="a\nb\ud800", raw=b"\xff"
        )
    (line,) = [json.loads(text, parse_constant=pytest.fail) for text in log_path.read_text().splitlines()]
    assert (line["loss"], line["best"], line["path"]) == ("nan", ["-inf"], "/x")
    assert line["text"] == "a\nb\\ud800"


def test_an_exception_is_one_line_with_its_traceback(log_path):
    with configure_logging(log_path, stream=None):
        try:
            {}["cheese"]
        except KeyError:
            structlog.get_logger().exception("loop.failed")
    (line,) = lines_of(log_path)
    assert line["level"] == "error"
    assert line["exception"].endswith("KeyError: 'cheese'")


@pytest.mark.parametrize("key", ["password", "api_key", "HF_TOKEN", "aws_secret", "env", "environment"])
def test_values_under_names_that_promise_a_secret_are_hidden(log_path, key):
    with configure_logging(log_path, stream=None):
        structlog.get_logger().info("launch", **{key: "hunter2"})
    assert "hunter2" not in log_path.read_text()


def test_warnings_of_libraries_are_in_the_same_form_and_their_chatter_is_not(log_path):
    with configure_logging(log_path, stream=None):
        logging.getLogger("uvicorn.error").info("Started server process")
        logging.getLogger("uvicorn.error").warning("odd request %d", 7)
    lines = lines_of(log_path)
    assert [(line["event"], line["logger"], line["message"]) for line in lines] == [
        ("library.log", "uvicorn.error", "odd request 7"),
    ]


def test_a_bad_format_string_of_a_library_is_logged_as_it_is(log_path):
    with configure_logging(log_path, stream=None):
        bridge = logging.getLogger().handlers[-1]
        bridge.emit(logging.LogRecord("x", logging.WARNING, "x.py", 1, "a bad format %d", ("word",), None))
    assert [line["message"] for line in lines_of(log_path)] == ["a bad format %d"]


def test_less_than_the_level_is_left_out(log_path):
    with configure_logging(log_path, stream=None, level=logging.WARNING):
        structlog.get_logger().info("chatter")
        structlog.get_logger().warning("this")
    assert [line["event"] for line in lines_of(log_path)] == ["this"]


def test_closing_leaves_no_handler_behind(log_path):
    before = list(logging.getLogger().handlers)
    configure_logging(log_path, stream=None).close()
    assert logging.getLogger().handlers == before


def write_to_stream(tmp_path, **options) -> str:
    target = tmp_path / "stdout"
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with configure_logging(None, stream=descriptor, **options):
            structlog.get_logger().warning("job.parked", job="mnist", attempt=None, reason="no progress")
    finally:
        os.close(descriptor)
    return target.read_text()


def test_the_stream_gets_json_when_it_is_no_terminal(tmp_path):
    assert json.loads(write_to_stream(tmp_path))["event"] == "job.parked"


def test_a_terminal_gets_a_form_for_people(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = write_to_stream(tmp_path, pretty=True)
    assert "\x1b[" in text
    assert not text.startswith("{")


def test_no_color_is_respected(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_COLOR", "1")
    text = write_to_stream(tmp_path, pretty=True)
    assert "\x1b" not in text
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[warning *\] job\.parked +job=mnist reason='no progress'\n", text)
