"""A whole run is moved aside and stays whole."""

from __future__ import annotations

import os

import pytest

from trainerd.checkpoint.run_aside import give_run_back, is_aside, move_run_aside
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints
from trainerd.contract.durable import make_directory
from trainerd.contract.names import check_name
from trainerd.contract.paths import RunPaths
from trainerd.errors import LockedError, UserError


def make(root, text):
    (root / "checkpoints").mkdir(parents=True)
    (root / "metrics.jsonl").write_text(text)
    return RunPaths(root)


def test_each_run_that_is_moved_aside_has_a_name_of_its_own(tmp_path):
    places = [move_run_aside(make(tmp_path / "train", text)) for text in ("one", "two")]
    assert [place.name for place in places] == ["train.old-1", "train.old-2"]
    assert [(place / "metrics.jsonl").read_text() for place in places] == ["one", "two"]
    assert not (tmp_path / "train").exists()
    assert all(is_aside(place.name) and check_name(place.name) for place in places)
    assert not is_aside("train.old")


def test_the_longest_name_is_cut(tmp_path):
    place = move_run_aside(make(tmp_path / ("a" * 100), "one"))
    assert check_name(place.name).endswith("a.old-1")


def test_where_there_is_no_run_nothing_is_moved(tmp_path):
    (tmp_path / "empty").mkdir()
    assert move_run_aside(RunPaths(tmp_path / "empty")) is None
    assert move_run_aside(RunPaths(tmp_path / "absent")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_run_that_is_trained_stays(tmp_path):
    run = make(tmp_path / "train", "one")
    with CheckpointStore.of_run(run).lock(), pytest.raises(LockedError):
        move_run_aside(run)
    assert run.metrics.read_text() == "one"


def test_a_folder_that_cannot_be_renamed_stays_and_is_named(tmp_path, monkeypatch):
    run = make(tmp_path / "train", "one")

    def refuse(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(UserError, match="train cannot be moved aside: Device or resource busy"):
        move_run_aside(run)
    monkeypatch.undo()
    with CheckpointStore.of_run(run).lock():
        assert run.metrics.read_text() == "one"


def test_a_run_on_another_disk_stays_there_and_so_does_the_new_one(tmp_path):
    make(tmp_path / "disk/r7", "old")
    (tmp_path / "train").symlink_to(tmp_path / "disk/r7")
    place = move_run_aside(RunPaths(tmp_path / "train"))
    assert place == tmp_path / "train.old-1"
    assert (
        (tmp_path / "disk/r7.old-1/metrics.jsonl").read_text()
        == "old"
        == (place / "metrics.jsonl").read_text()
    )
    assert list((tmp_path / "train").iterdir()) == [] == list((tmp_path / "disk/r7").iterdir())


def test_after_a_crash_the_folder_on_the_other_disk_is_made_by_the_next_start(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "train").symlink_to(tmp_path / "disk/r7")
    make_directory(tmp_path / "train/attempts/000001")
    assert (tmp_path / "disk/r7/attempts/000001").is_dir()
    (tmp_path / "lost").symlink_to(tmp_path / "unmounted/r7")
    with pytest.raises(FileNotFoundError):
        make_directory(tmp_path / "lost/attempts")


def test_a_run_is_given_back_unless_another_one_has_begun(tmp_path):
    run = make(tmp_path / "train", "old")
    place = move_run_aside(run)
    assert give_run_back(run, place)
    assert (run.metrics.read_text(), place.exists()) == ("old", False)
    place = move_run_aside(run)
    make(run.root, "new")
    assert not give_run_back(run, place)
    assert (run.metrics.read_text(), (place / "metrics.jsonl").read_text()) == ("new", "old")


def test_a_run_on_another_disk_is_given_back(tmp_path):
    make(tmp_path / "disk/r7", "old")
    run = RunPaths(tmp_path / "train")
    run.root.symlink_to(tmp_path / "disk/r7")
    assert give_run_back(run, move_run_aside(run))
    assert (run.root / "metrics.jsonl").read_text() == "old"
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["r7"]
    assert not (tmp_path / "train.old-1").is_symlink()


def test_a_crash_after_a_run_was_given_back_leaves_it_in_its_place(tmp_path):
    run = make(tmp_path / "train", "old")
    place = move_run_aside(run)
    child = os.fork()
    if child == 0:
        failpoints.arm("run.given-back=exit")
        give_run_back(run, place)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0, "the point was not met"
    assert (run.metrics.read_text(), place.exists()) == ("old", False)
