"""What the code logs is in the catalogue, and the page is made from it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trainerd
from trainerd.supervisor.log.catalogue import CATALOGUE
from trainerd.supervisor.log.event_fields import FIELDS
from trainerd.supervisor.log.events_page import page
from trainerd.supervisor.machine.job_events import EVENTS
from trainerd.supervisor.machine.states import STATES

PACKAGE = Path(trainerd.__file__).parent
PAGE = Path(__file__).parents[4] / "docs" / "events.md"
LEVELS = {"debug", "info", "warning", "error"}
BY_NAME = {"log_event", "emit", "_warn"}
"""Functions that take the name of an event; the level comes from the catalogue."""
NOT_FIELDS = {"exc_info", "descriptor"}


def calls() -> list[tuple[str, ast.Call, str]]:
    """Return every call that logs: where, the call, and the function's name."""
    found = []
    for path in sorted((*PACKAGE.glob("supervisor/**/*.py"), *PACKAGE.glob("cli/*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            of = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
            is_logger = of == "_log" or of.startswith("structlog.get_logger(__name__)")
            if (name in {*LEVELS, "log", "exception"} and is_logger) or name in BY_NAME:
                found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", node, name))
    return found


def literal(node: ast.Call) -> list[str]:
    """Return the names that a call may log, none if its first argument is no literal."""
    first = node.args[0]
    choices = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    return [each.value for each in choices if isinstance(each, ast.Constant)]


BY_VARIABLE = {
    "supervisor/attempt/monitor.py",
    "supervisor/log/say.py",
    "supervisor/loop.py",
    "cli/json_errors.py",
}
"""Where a name is no literal: the lines of jobs and the findings of ranks, which have tests of their own."""


def test_every_call_logs_an_event_of_the_catalogue_at_its_level_with_its_fields():
    found = calls()
    assert len(found) > 40, "the calls are no longer found"
    wrong = []
    for place, node, function in found:
        names = literal(node)
        if not names and place.partition(":")[0] not in BY_VARIABLE:
            wrong.append(f"{place}: the name of the event is no literal")
        for name in names:
            event = CATALOGUE.get(name)
            if event is None:
                wrong.append(f"{place}: {name} is not in the catalogue")
                continue
            given = {word.arg for word in node.keywords if word.arg is not None} - NOT_FIELDS
            given |= {"exception"} if any(word.arg == "exc_info" for word in node.keywords) else set()
            if given - set(event.fields):
                wrong.append(f"{place}: {name} has no field {sorted(given - set(event.fields))}")
            if function in LEVELS and function != event.level:
                wrong.append(f"{place}: {name} is logged as {function}, not {event.level}")
    assert wrong == []


def test_the_library_and_lost_lines_are_in_the_catalogue():
    """They are logged where the logger itself is made, by other means than a call of `_log`."""
    assert {"library.log", "log.lost"} <= CATALOGUE.keys()


def test_every_decision_about_a_job_has_an_event():
    expected = {f"job.{state.NAME}" for state in STATES} | {"job.forgotten"}
    assert expected <= CATALOGUE.keys()
    assert len([name for name in CATALOGUE if name.startswith("job.noted.")]) == len(EVENTS)


def test_every_field_has_a_meaning_and_every_meaning_a_field():
    assert {name for event in CATALOGUE.values() for name in event.fields} == FIELDS.keys()


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "python -m trainerd.supervisor.log.events_page > docs/events.md"


@pytest.mark.parametrize(
    "name", ["attempt.failed", "resume.inexact", "resume.fallback", "checkpoint.quarantined"]
)
def test_what_an_administrator_alerts_on_is_a_warning(name):
    assert CATALOGUE[name].level == "warning"
