"""What the tests of the training side have in common."""

from __future__ import annotations

import contextlib
import gc

import pytest

from trainerd.contract.environment import CHECK


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


@pytest.fixture(autouse=True)
def callers_are_not_checked(monkeypatch):
    """The scripts here are test modules: what a check finds in them is not about the loops."""
    monkeypatch.setenv(CHECK, "off")
