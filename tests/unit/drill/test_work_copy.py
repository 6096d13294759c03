"""Copies of the working folder."""

from __future__ import annotations

import pytest

from trainerd.drill import work_copy
from trainerd.drill.work_copy import copy_work
from trainerd.errors import UserError


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "project"
    (folder / "pkg").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)\n")
    (folder / "train.py").chmod(0o755)
    (folder / "pkg" / "model.py").write_text("x = 1\n")
    (folder / "shortcut.py").symlink_to("train.py")
    (folder / "venv").mkdir()
    (folder / "venv" / "pyvenv.cfg").touch()
    (folder / ".trainerd").mkdir()
    (folder / ".trainerd" / "state").touch()
    (folder / "data").mkdir()
    (folder / "data" / "big.bin").write_bytes(b"data")
    (tmp_path / "beside").mkdir()
    return folder


def test_what_is_written_in_a_copy_is_not_written_in_the_original(source, tmp_path):
    target = tmp_path / "drill" / "beside" / "project"
    copy_work(source, target)
    (target / "train.py").write_text("changed")
    (target / "shortcut.py").write_text("changed too")
    assert (source / "train.py").read_text() == "print(1)\n"
    assert (target / "pkg" / "model.py").read_text() == "x = 1\n"


def test_modes_are_kept_and_run_folders_left_out(source, tmp_path):
    target = tmp_path / "drill" / "beside" / "project"
    copy_work(source, target)
    assert (target / "train.py").stat().st_mode & 0o100
    assert not (target / ".trainerd").exists()


def test_environments_and_named_folders_are_linked(source, tmp_path):
    target = tmp_path / "drill" / "beside" / "project"
    copy_work(source, target, linked=[source / "data"])
    assert (target / "venv").is_symlink()
    assert (target / "data").is_symlink()
    assert (target / "data" / "big.bin").read_bytes() == b"data"


def test_what_lies_beside_is_found_under_the_same_relative_path(source, tmp_path):
    target = tmp_path / "drill" / "beside" / "project"
    copy_work(source, target)
    assert (target / ".." / "beside").resolve() == tmp_path / "beside"


def test_a_copy_within_the_folder_does_not_copy_itself(source):
    target = source / "drills" / "one" / "project"
    copy_work(source, target)
    assert not (target / "drills").exists()
    assert (target / "train.py").exists()


def test_too_large_a_folder_is_refused_with_a_way_out(source, tmp_path, monkeypatch):
    monkeypatch.setattr(work_copy, "FILES_MAX", 1)
    with pytest.raises(UserError, match="--link"):
        copy_work(source, tmp_path / "drill" / "project")


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.txt").write_text("real")
    (folder / "deep" / "two.txt").write_text("real")
    return folder


@pytest.mark.parametrize("name", ["one.txt", "."], ids=["file", "folder"])
def test_what_is_written_through_a_link_is_not_written_outside(source, tmp_path, outside, name):
    (source / "out").symlink_to(outside / name)
    target = tmp_path / "drill" / "beside" / "project"
    copy_work(source, target)
    written = target / "out" if name == "one.txt" else target / "out" / "one.txt"
    assert written.read_text() == "real"
    written.write_text("changed")
    assert (outside / "one.txt").read_text() == "real"


def test_an_absolute_link_within_the_folder_leads_to_the_copy(source, tmp_path):
    (source / "pkg" / "absolute.py").symlink_to(source / "train.py")
    (source / "absolute").symlink_to(source / "pkg")
    target = tmp_path / "drill" / "beside" / "project"
    copy_work(source, target)
    (target / "pkg" / "absolute.py").write_text("changed")
    (target / "absolute" / "model.py").write_text("changed")
    assert (source / "train.py").read_text() == "print(1)\n"
    assert (source / "pkg" / "model.py").read_text() == "x = 1\n"


@pytest.mark.parametrize("limit", ["LINK_FILES_MAX", "LINK_BYTES_MAX"])
def test_a_link_to_much_outside_is_refused_with_its_name_unless_it_is_only_read(
    source, tmp_path, outside, monkeypatch, limit
):
    monkeypatch.setattr(work_copy, limit, 1)
    (source / "pkg" / "out").symlink_to(outside)
    with pytest.raises(UserError, match="--link pkg/out") as caught:
        copy_work(source, tmp_path / "drill" / "beside" / "project")
    assert str(outside) in str(caught.value)
    target = tmp_path / "drill" / "again" / "project"
    copy_work(source, target, linked=[source / "pkg" / "out"])
    assert (target / "pkg" / "out" / "one.txt").resolve() == outside / "one.txt"


def test_links_that_lead_round_are_refused(source, tmp_path, outside):
    (source / "up").symlink_to(tmp_path)
    with pytest.raises(UserError, match="--link up"):
        copy_work(source, tmp_path / "drill" / "beside" / "project")
    (source / "up").unlink()
    (outside / "self").symlink_to(outside)
    (source / "out").symlink_to(outside)
    with pytest.raises(UserError, match="leads out of"):
        copy_work(source, tmp_path / "drill" / "again" / "project")


def test_a_link_to_nothing_and_to_a_device_are_kept(source, tmp_path):
    (source / "nothing").symlink_to("/nowhere/at/all")
    (source / "null").symlink_to("/dev/null")
    target = tmp_path / "drill" / "beside" / "project"
    copy_work(source, target)
    assert (target / "nothing").is_symlink()
    assert (target / "null").resolve().as_posix() == "/dev/null"
