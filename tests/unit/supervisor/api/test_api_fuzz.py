"""The API against its own OpenAPI document: whatever is sent, the answer is one that the document
promises."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.support.fake_control import MNIST, FakeControl, job
from trainerd.supervisor.api.app import create_app

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

EXAMPLES = int(os.environ.get("TRAINERD_FUZZ_EXAMPLES", "8"))
"""Of each route; `test_many_requests_are_answered_as_the_document_says` tries many more, marked slow."""

SCHEMA = schemathesis.openapi.from_asgi(
    "/v1/openapi.json", create_app(FakeControl(MNIST, job("done", "finished", attempt=3)))
)
QUIETLY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@SCHEMA.parametrize()
@settings(max_examples=EXAMPLES, **QUIETLY)
def test_requests_are_answered_as_the_document_says(case):
    """Good requests are carried out, bad ones refused with 4xx; nothing is a 500."""
    case.call_and_validate()


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(max_examples=300, **QUIETLY)
def test_many_requests_are_answered_as_the_document_says(case):
    case.call_and_validate()
