"""What the tests of the training side have in common."""

from __future__ import annotations

import pytest

from tests.support.training_fixtures import old_objects_are_set_aside  # noqa: F401 - a fixture
from trainerd.contract.environment import CHECK


@pytest.fixture(autouse=True)
def callers_are_not_checked(monkeypatch):
    """The scripts here are test modules: what a check finds in them is not about the loops."""
    monkeypatch.setenv(CHECK, "off")


@pytest.fixture
def saved_each_time(monkeypatch):
    """Have each boundary saved that is due, though the save before is in flight."""
    from trainerd.training.engine.run_saves import RunSaves

    monkeypatch.setattr(RunSaves, "save_if_free", RunSaves.save)
