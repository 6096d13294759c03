"""Fixtures of the tests on real shims."""

from __future__ import annotations

import pytest
from shim_workbench import OBEDIENT, STUBBORN, Workbench, python


@pytest.fixture
def workbench(tmp_path):
    workbench = Workbench(tmp_path)
    yield workbench
    workbench.clean_up()


@pytest.fixture
def obedient():
    return python(OBEDIENT)


@pytest.fixture
def stubborn():
    return python(STUBBORN)
