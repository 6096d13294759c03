"""What the tests of the integrations have in common."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def accelerate_is_in_no_loop() -> None:
    """An attempt that crashed in a loop leaves that loop in Accelerate's state of the process."""
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.GradientState._reset_state()
