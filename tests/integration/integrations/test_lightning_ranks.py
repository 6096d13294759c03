"""Lightning on two ranks under real kills and requests to stop ends as an undisturbed run, bit for bit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.integrations.disturbed_ranks import compare_ranks

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed"),
]

JOB = Path(__file__).with_name("lightning_ranks_job.py")


@pytest.mark.timeout(600)
def test_two_ranks_stop_together_and_go_on(tmp_path: Path) -> None:
    strikes = ("0.1:TERM@0", "0.4:KILL@1", "validation0:KILL", "1.3:TERM", "2.1:KILL@0")  # six batches
    compare_ranks(JOB, tmp_path, strikes, modules=("tests.support.lightning_imports",))
