"""Scenarios that wait for most of their time, run at the same time; a test is the end of one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

Scenario = TypeVar("Scenario")


@contextlib.contextmanager
def at_once(
    request: pytest.FixtureRequest, parameter: str, start: Callable[[Scenario], Any], *, most: int
) -> Iterator[dict[Scenario, Future[Any]]]:
    """Run each scenario for which a test of this module is selected, in a thread of its own.

    Args:
        request: Of a fixture of the module.
        parameter: By which the tests name their scenario.
        start: Runs a scenario to its end.
        most: How many run at the same time: each imports torch several times.
    """
    here = [item for item in request.session.items if item.path == request.path]
    chosen = [item.callspec.params for item in here if hasattr(item, "callspec")]
    scenarios = [found[parameter] for found in chosen if parameter in found]
    with ThreadPoolExecutor(most) as pool:
        yield {scenario: pool.submit(start, scenario) for scenario in scenarios}
