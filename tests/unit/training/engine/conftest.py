"""What the tests of the engine have in common."""

from __future__ import annotations

import pytest

from trainerd.contract.paths import RunPaths


@pytest.fixture
def run(tmp_path):
    return RunPaths(tmp_path / "run")
