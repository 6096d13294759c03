"""Fixtures of the tests on a real supervisor."""

from __future__ import annotations

import pytest

from tests.support.daemon_bench import Bench


@pytest.fixture
def bench(tmp_path):
    tmp_path.chmod(0o755)
    bench = Bench(tmp_path)
    yield bench
    bench.clean_up()
