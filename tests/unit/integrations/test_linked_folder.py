"""A folder under a second name: no copy of the data, whole or absent, and independent of the first one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from trainerd.training.integrations.linked_folder import link_folder

pytestmark = pytest.mark.torch


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "step-1"
    (folder / "rank-0").mkdir(parents=True)
    (folder / "rank-0" / "data").write_text("weights")
    (folder / "manifest.json").write_text("{}")
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_it_has_the_same_files_and_outlives_the_first_name(source, tmp_path):
    target, before = tmp_path / "ray" / "step-1", texts(source)
    target.parent.mkdir()
    assert link_folder(source, target)
    assert (target / "rank-0" / "data").samefile(source / "rank-0" / "data")
    shutil.rmtree(source)
    assert texts(target) == before
    assert list(target.parent.iterdir()) == [target]


def test_what_is_there_stays_and_what_a_crash_left_does_not(source, tmp_path):
    target = tmp_path / "other"
    (tmp_path / ".other.partial").mkdir()
    (tmp_path / ".other.partial" / "half").touch()
    assert link_folder(source, target)
    assert texts(target) == texts(source)
    shutil.rmtree(source)
    assert link_folder(source, target), "it was complete"


def test_where_there_are_no_hard_links_nothing_is_left(source, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert not link_folder(source, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1"]
