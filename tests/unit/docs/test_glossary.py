"""The glossary has the words that the design fixes, and no others: what a page needs besides, it explains."""

from __future__ import annotations

import re
from pathlib import Path

GLOSSARY = Path(__file__).parents[3] / "docs" / "glossary.md"
WORDS = """
job, run, attempt, rank, step, epoch
checkpoint, snapshot, staging buffer, commit, manifest, digest, retention, prune, pin, quarantine
drain
grace period, deadline, preemption notice
stall, heartbeat, progress
backoff, restart budget, parked
monitor, launcher, probe, facade, coordinator, rendezvous, shard, lineage
verdict, exact, unchecked, suspect, different
"""


def test_the_glossary_has_the_words_of_the_design():
    words = [word for line in WORDS.split("\n") if line for word in line.split(", ")]
    found = re.findall(r"^\| \*\*(.+?)\*\* \|", GLOSSARY.read_text("utf-8"), re.MULTILINE)
    assert sorted(found) == sorted(words)
