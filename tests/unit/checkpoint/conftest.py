from __future__ import annotations

import pytest

from tests.support.checkpoints import FakeClock
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def unlocked(tmp_path, clock):
    """A store that does not hold its lock."""
    return CheckpointStore(tmp_path / "checkpoints", clock=clock)


@pytest.fixture
def store(unlocked):
    """A store that holds its lock."""
    with unlocked.lock():
        yield unlocked


@pytest.fixture(autouse=True)
def disarmed():
    """No failpoint stays armed."""
    yield
    failpoints.arm("")
