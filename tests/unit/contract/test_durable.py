"""Durable writes: the old content or the new one, and nothing in between."""

import errno
import os
from pathlib import Path

import pytest

from trainerd.contract import failpoints
from trainerd.contract.durable import TEMPORARY_INFIX, make_directory, sweep_temporary, write_file
from trainerd.errors import SpaceError

POINTS = ["record.written", "record.synced", "record.renamed", "record.durable"]


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoints.arm("")


def test_a_file_gets_the_permissions_of_the_umask(tmp_path):
    former = os.umask(0o027)
    try:
        write_file(tmp_path / "record", b"x")
    finally:
        os.umask(former)
    assert (tmp_path / "record").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
def test_an_error_at_any_point_leaves_the_old_content_or_the_new(tmp_path, point, error):
    path = tmp_path / "record"
    write_file(path, b"old")
    failpoints.arm(f"{point}={error}")
    with pytest.raises((OSError, SpaceError)) as raised:
        write_file(path, b"new")
    assert isinstance(raised.value, SpaceError) == (error != "EIO") or point == "record.durable"
    assert path.read_bytes() == (b"old" if point in POINTS[:2] else b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_leaves_the_old_content_or_the_new(tmp_path, point):
    path = tmp_path / "record"
    write_file(path, b"old")
    child = os.fork()
    if child == 0:
        failpoints.arm(f"{point}=kill")
        write_file(path, b"new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert path.read_bytes() in {b"old", b"new"}
    sweep_temporary(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


@pytest.fixture
def done(monkeypatch):
    """What was synced and renamed, in order: a kill cannot show a missing sync; a power cut would."""
    seen = []
    fsync, replace = os.fsync, Path.replace

    def named(path):
        return path.name.partition(TEMPORARY_INFIX)[0]

    def recorded_fsync(descriptor):
        seen.append(("sync", named(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def recorded_replace(self, target):
        seen.append(("rename", named(self), named(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    return seen


def test_a_record_is_synced_then_renamed_then_its_folder_is_synced(tmp_path, done):
    write_file(tmp_path / "record", b"new")
    assert done == [("sync", ".record"), ("rename", ".record", "record"), ("sync", tmp_path.name)]


def test_the_name_of_a_new_folder_is_synced_in_its_parent(tmp_path, done):
    make_directory(tmp_path / "a" / "b")
    assert done == [("sync", tmp_path.name), ("sync", "a")]


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    write_file(tmp_path / "record", b"0123456789")
    assert (tmp_path / "record").read_bytes() == b"0123456789"


def test_folders_are_made_with_their_parents(tmp_path):
    make_directory(tmp_path / "a" / "b" / "c")
    make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_full_disk_is_an_error_that_says_so(tmp_path):
    failpoints.arm("record.written=ENOSPC")
    with pytest.raises(SpaceError, match=os.strerror(errno.ENOSPC)):
        write_file(tmp_path / "record", b"x")
