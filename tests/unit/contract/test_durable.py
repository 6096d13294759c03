"""Durable writes: the old content or the new one, and nothing in between."""

import errno
import os

import pytest

from trainerd.contract import failpoints
from trainerd.contract.durable import make_directory, sweep_temporary, write_file
from trainerd.errors import SpaceError

POINTS = ["record.written", "record.synced", "record.renamed", "record.durable"]


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoints.arm("")


def arm(text):
    for point in failpoints.REGISTRY.values():
        point.hits = 0
    failpoints.arm(text)


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
    arm(f"{point}={error}")
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
        arm(f"{point}=kill")
        write_file(path, b"new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert path.read_bytes() in {b"old", b"new"}
    sweep_temporary(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


def test_folders_are_made_with_their_parents(tmp_path):
    make_directory(tmp_path / "a" / "b" / "c")
    make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_full_disk_is_an_error_that_says_so(tmp_path):
    arm("record.written=ENOSPC")
    with pytest.raises(SpaceError, match=os.strerror(errno.ENOSPC)):
        write_file(tmp_path / "record", b"x")
