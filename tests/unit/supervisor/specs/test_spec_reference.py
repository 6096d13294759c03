"""The documentation of specs says what the model says."""

from __future__ import annotations

import re
from pathlib import Path

from trainerd.supervisor.specs.folder import BROKEN_SETTLE_S, SETTLE_S
from trainerd.supervisor.specs.load import parse_spec
from trainerd.supervisor.specs.reference import with_table

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "specs.md"


def test_the_table_of_fields_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "run: python -m trainerd.supervisor.specs.reference docs/specs.md"


def test_every_spec_shown_in_the_documentation_is_valid():
    shown = [
        block
        for page in (PAGE, ROOT / "jobs" / "README.md")
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        if "command:" in block
    ]
    assert len(shown) >= 2
    for block in shown:
        parse_spec(Path("/nowhere/job.yaml"), block.encode())


def test_the_limits_named_in_the_documentation_are_those_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    assert f"left alone for {SETTLE_S} s" in text
    assert f"waits for {BROKEN_SETTLE_S:.0f} s" in text
