"""A fixture for tests that train in this process."""

from __future__ import annotations

import contextlib
import gc

import pytest


@pytest.fixture(autouse=True, scope="session")
def old_objects_are_set_aside():
    """What goes through all objects, such as the audit of a first step, sees those of the tests only.

    The half a million that torch and pytest bring would take a quarter of a second each time.
    """
    with contextlib.suppress(ImportError):
        import torch._dynamo  # noqa: F401 - the first optimizer imports it
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
