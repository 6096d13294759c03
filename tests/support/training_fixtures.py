"""Fixtures for tests that train in this process."""

from __future__ import annotations

import contextlib
import gc

import pytest

OBJECTS_MAX = 50_000
"""More live objects than these are set aside again, before a module of tests."""


@pytest.fixture(autouse=True, scope="module")
def old_objects_are_set_aside():
    """What goes through all objects, such as the audit of a first step, sees those of a module's tests only.

    The half a million that torch, pytest and former tests bring would take a quarter of a second each time.
    """
    with contextlib.suppress(ImportError):
        import torch._dynamo  # noqa: F401 - the first optimizer imports it
    if len(gc.get_objects()) > OBJECTS_MAX:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def one_thread():
    """Train in one thread: tiny models are slower in several, and beside another test much slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
