"""Many jobs at once, on a small scale: the facts that `python -m bench.supervisor` measures on a large
one."""

from __future__ import annotations

import pytest

from bench.supervisor_scale import measure_scale

JOBS = 30
AT_ONCE = 10


@pytest.mark.slow
def test_thirty_specs_dropped_at_once_run_ten_at_a_time_and_each_once():
    seen = measure_scale(JOBS, AT_ONCE, limit_s=90, drops=1)
    assert (seen.finished, seen.started_twice, seen.never_started) == (JOBS, 0, 0)
    assert 0 < seen.running_max <= AT_ONCE
    assert seen.resident_bytes_max < 150e6
