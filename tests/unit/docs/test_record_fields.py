"""The page of formats has every field of the records that another program may read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from trainerd.checkpoint.memory_place import MemoryRecord
from trainerd.contract.resume_record import ResumeRecord

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"


@pytest.mark.parametrize(
    ("title", "record"), [("resume.json", ResumeRecord), ("Copies in memory", MemoryRecord)]
)
def test_every_field_is_in_the_section_of_its_record(title, record):
    section = PAGE.read_text("utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert [each.name for each in fields(record) if f"`{each.name}`" not in section] == []
