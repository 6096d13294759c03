"""What a drill leaves in the folder in which it was started: nothing that the other verbs would find."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainerd.cli.drill import drill_job
from trainerd.cli.options import LOCAL_STATE
from trainerd.contract.resolved import ResolvedJob
from trainerd.drill.conduct import Drill

JOB = ResolvedJob(name="drill", command=("true",), workdir="/", spec_path="", spec_digest="drill")


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Have the drill note the folders that it could use, and do nothing."""
    monkeypatch.chdir(tmp_path)
    seen: list[list[str]] = []
    monkeypatch.setattr(
        Drill, "conduct", lambda _: seen.append([each.name for each in LOCAL_STATE.iterdir()])
    )
    return seen


def test_a_drill_leaves_no_folder_that_would_be_taken_for_a_supervisors(seen):
    drill_job(JOB, budget_s=1.0)
    assert seen[0][0].startswith("drill-")
    assert not LOCAL_STATE.exists()


def test_a_state_folder_that_was_there_stays(seen):
    LOCAL_STATE.mkdir()
    drill_job(JOB, budget_s=1.0)
    assert list(LOCAL_STATE.iterdir()) == []


def test_what_is_kept_stays_where_it_was_asked_for(seen, tmp_path):
    LOCAL_STATE.mkdir()
    drill_job(JOB, budget_s=1.0, keep=Path("kept"))
    assert [each.name[:6] for each in (tmp_path / "kept").iterdir()] == ["drill-"]
