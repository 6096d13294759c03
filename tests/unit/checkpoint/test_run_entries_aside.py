"""A run leaves a folder that holds other things too: whole, alone, and after any crash."""

from __future__ import annotations

import os

import pytest

from trainerd.checkpoint import lock
from trainerd.checkpoint.run_entries_aside import complete_move, move_entries_aside
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints
from trainerd.contract.paths import RunPaths
from trainerd.contract.run_record import RunRecord, read_run_record, write_run_record
from trainerd.errors import LockedError, UserError

RECORD = RunRecord("out", "train.py")
FILES = ("metrics.jsonl", "attempts/000001/session", "checkpoints/step-000000003/data")


def make(root, text="old"):
    """A run without a supervisor, and what a script has put beside it."""
    run = RunPaths(root)
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    write_run_record(run.record, RECORD)
    (root / "config.json").write_text("mine")
    make_other(root / "other")
    return run


def make_other(root):
    (root / "checkpoints").mkdir(parents=True)
    (root / "checkpoints/.writer.lock").touch()


def is_whole(place, text="old"):
    assert [(place / name).read_text() for name in FILES] == [text] * len(FILES)
    assert read_run_record(RunPaths(place).record) == RECORD
    return True


def stays(run):
    """Whether only what is not of the run is left."""
    assert (run.root / "config.json").read_text() == "mine"
    return sorted(path.name for path in run.root.iterdir()) == ["config.json", "other"]


def test_only_the_run_leaves(tmp_path):
    run = make(tmp_path / "out")
    moved = move_entries_aside(run)
    assert (moved.place, moved.stayed) == (tmp_path / "out.old-1", ("config.json", "other"))
    assert is_whole(moved.place)
    assert stays(run)
    assert move_entries_aside(run) is None


def test_a_folder_without_a_run_is_left_alone(tmp_path):
    run = RunPaths(tmp_path / "out")
    for name in ("metrics.jsonl", "logs/events", "checkpoints/best.pt", "attempts/notes.txt"):
        (run.root / name).parent.mkdir(parents=True, exist_ok=True)
        (run.root / name).write_text("mine")
    make_other(run.root / "runs/other")
    assert move_entries_aside(run) is None
    assert move_entries_aside(RunPaths(tmp_path / "absent")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_on_another_disk_stays_there_and_so_does_the_new_one(tmp_path):
    make(tmp_path / "disk/r7")
    (tmp_path / "out").symlink_to(tmp_path / "disk/r7")
    moved = move_entries_aside(RunPaths(tmp_path / "out"))
    assert is_whole(tmp_path / "disk/r7.old-1")
    assert moved.place == tmp_path / "out.old-1"
    assert is_whole(moved.place)
    assert stays(RunPaths(tmp_path / "out"))


def test_where_nothing_can_be_put_beside_the_folder_the_run_stays_within(tmp_path, monkeypatch):
    run = make(tmp_path / "out")
    rename = type(tmp_path).rename

    def refuse(path, target):
        if target.parent == tmp_path:
            raise OSError(18, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    for number in (1, 2):
        moved = move_entries_aside(run)
        assert moved.place == run.root / f"out.old-{number}"
        assert moved.stayed == ("config.json", "other")
        assert is_whole(moved.place)
        make(tmp_path / "again").root.joinpath("attempts").rename(run.attempts)
        for name in ("checkpoints", "metrics.jsonl", "run.json"):
            (tmp_path / "again" / name).rename(run.root / name)
        os.rename(tmp_path / "again", tmp_path / f"again-{number}")  # noqa: PTH104 - not refused


def test_what_cannot_be_moved_is_where_it_was(tmp_path, monkeypatch):
    run = make(tmp_path / "out")
    rename = type(tmp_path).rename

    def refuse(path, target):
        if path.name == "checkpoints" and target.parent == run.departing:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(UserError, match="out cannot be moved aside: Input/output error"):
        move_entries_aside(run)
    assert is_whole(run.root)
    assert not run.departing.exists()


def test_a_run_that_is_trained_or_moved_by_another_process_stays(tmp_path, monkeypatch):
    run = make(tmp_path / "out")
    with CheckpointStore.of_run(run).lock(), pytest.raises(LockedError):
        move_entries_aside(run)
    assert is_whole(run.root)
    run.departing.mkdir()
    run.checkpoints.rename(run.departing / "checkpoints")
    with CheckpointStore.of_run(RunPaths(run.departing)).lock(), pytest.raises(LockedError):
        complete_move(run)


POINTS = [("run.departing", number) for number in range(1, 5)] + [("run.aside", 1), ("record.synced", 1)]


@pytest.mark.parametrize(("point", "number"), POINTS, ids=[f"{name}-{number}" for name, number in POINTS])
@pytest.mark.parametrize("is_fresh", [True, False], ids=["fresh", "not fresh"])
def test_a_crash_in_the_middle_is_completed_by_the_next_start(tmp_path, point, number, is_fresh):
    run = make(tmp_path / "out")
    child = os.fork()
    if child == 0:
        failpoints.arm(f"{point}=exit@{number}")
        move_entries_aside(run)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0, "the point was not met"
    # The program finds its folder by the record, unless all is done.
    assert read_run_record(run.record) == RECORD
    (move_entries_aside if is_fresh else complete_move)(run)
    assert is_whole(tmp_path / "out.old-1")
    assert not (tmp_path / "out.old-2").exists()
    assert [path.name for path in run.root.iterdir() if path.name in {"checkpoints", ".departing"}] == []
    assert not lock.holds_lock(run.checkpoints)
