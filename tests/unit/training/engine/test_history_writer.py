"""The metric history: what a checkpoint counts on is durable."""

from __future__ import annotations

import errno
import os

import pytest

from trainerd.contract import failpoints
from trainerd.errors import SpaceError
from trainerd.training.engine import history
from trainerd.training.engine.history import HistoryWriter


def test_the_name_of_a_new_history_is_durable_before_anything_is_written(tmp_path, monkeypatch):
    """A power cut once left a durable checkpoint whose history had no name: fsync of a file does not cover
    it."""
    synced = []
    monkeypatch.setattr(history, "sync_directory", synced.append)
    HistoryWriter(tmp_path / "metrics.jsonl").open().close()
    assert synced == [tmp_path]


def test_a_line_that_did_not_fit_leaves_nothing_and_may_be_tried_again(tmp_path, monkeypatch):
    writer = HistoryWriter(tmp_path / "metrics.jsonl").open()
    writer.line(b"first\n")
    write = os.write

    def full(descriptor, line):
        write(descriptor, bytes(line[:2]))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(history, "write_all", full)
        patched.setattr(history.os, "write", lambda descriptor, line: write(descriptor, line[:2]))
        with pytest.raises(SpaceError):
            writer.line(b"second\n")
    writer.line(b"second\n")
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"first\nsecond\n"
    assert writer.position_bytes == writer.sync() == 13
    writer.close()


def test_what_a_former_attempt_still_appends_is_not_in_the_history(tmp_path):
    path = tmp_path / "metrics.jsonl"
    former = HistoryWriter(path).open()
    former.line(b"first\n")
    path.chmod(0o640)
    successor = HistoryWriter(path).open()
    former.line(b"too late\n")
    successor.line(b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.jsonl"]
    former.close()
    successor.close()


@pytest.mark.parametrize("point", ["record.written", "record.synced"])
def test_a_history_that_cannot_be_copied_is_untouched(tmp_path, point):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"first\n")
    try:
        failpoints.arm(f"{point}=ENOSPC")
        with pytest.raises(SpaceError):
            HistoryWriter(path).open()
    finally:
        failpoints.arm("")
    assert path.read_bytes() == b"first\n"
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_history_behind_a_link_stays_there(tmp_path):
    place = tmp_path / "elsewhere.jsonl"
    place.write_bytes(b"first\n")
    (tmp_path / "metrics.jsonl").symlink_to(place)
    writer = HistoryWriter(tmp_path / "metrics.jsonl").open()
    writer.line(b"second\n")
    writer.close()
    assert place.read_bytes() == b"first\nsecond\n"


class Follower:
    def __init__(self):
        self.lines = []

    def line(self, line):
        self.lines.append(line)

    def close(self):
        pass


def test_a_history_that_is_brought_back_is_no_line_to_a_follower(tmp_path):
    """A follower reads what came before from the file, when the attempt begins."""
    follower = Follower()
    writer = HistoryWriter(tmp_path / "metrics.jsonl").open()
    writer.follow(follower)
    writer.replace(history.HEADER + b'{"step": 1}\n{"step": 2}\n')
    assert follower.lines == []
    writer.begin(attempt=2, checkpoint="step-000000002", step=2, keep_bytes=writer.position_bytes)
    (marker,) = follower.lines
    assert b"resume" in marker
    writer.close()
