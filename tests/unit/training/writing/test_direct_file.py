"""Files past the page cache: the bytes, the digest, and the filesystems that refuse."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from trainerd.checkpoint import direct_io
from trainerd.checkpoint.digest import digest_of_bytes, digest_of_file
from trainerd.checkpoint.direct_io import BLOCK_BYTES, open_new, read_at
from trainerd.checkpoint.direct_read import PIECE_BYTES, read_digested
from trainerd.checkpoint.host_memory import host_memory
from trainerd.contract import failpoints
from trainerd.errors import SpaceError
from trainerd.training.writing.direct_file import AbandonedError, write_direct

SIZES = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 17]


def pieces_of(data: bytes, piece_bytes: int = BLOCK_BYTES):
    memory = host_memory(len(data) + BLOCK_BYTES)
    memory[: len(data)] = data
    view = memoryview(memory)
    end = -(-len(data) // BLOCK_BYTES) * BLOCK_BYTES
    for begin in range(0, end, piece_bytes):
        yield view[begin : min(begin + piece_bytes, end)]


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    """A folder on a disk, and one on tmpfs."""
    if request.param == "disk":
        yield tmp_path
        return
    path = Path("/dev/shm") / f"trainerd-test-{os.getpid()}"
    path.mkdir()
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.mark.parametrize("size", SIZES)
def test_a_file_has_the_bytes_the_size_and_the_digest(folder, size):
    data = os.urandom(size)
    entry = write_direct(folder / "file", pieces_of(data), size)
    assert (folder / "file").read_bytes() == data
    assert (entry.name, entry.bytes, entry.digest) == ("file", size, digest_of_bytes(data))


@pytest.mark.parametrize("size", [*SIZES, PIECE_BYTES, 2 * PIECE_BYTES + 5])
def test_what_is_read_is_what_was_written(folder, size):
    data = os.urandom(size)
    (folder / "file").write_bytes(data)
    content, digest = read_digested(folder / "file")
    assert bytes(content) == data
    assert digest == digest_of_bytes(data)
    assert digest_of_file(folder / "file") == (size, digest)


def test_a_filesystem_that_refuses_at_the_first_write_is_written_through_the_cache(tmp_path, monkeypatch):
    refused = []

    def pwrite(descriptor, data, offset, real=os.pwrite):
        if not refused:
            refused.append(offset)
            raise OSError(errno.EINVAL, "refused")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    data = os.urandom(5000)
    write_direct(tmp_path / "file", pieces_of(data), 5000)
    assert (tmp_path / "file").read_bytes() == data
    assert refused


def test_a_filesystem_that_refuses_at_the_open_is_written_through_the_cache(tmp_path, monkeypatch):
    def refusing(path, flags, mode=0o777, real=os.open):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return real(path, flags, mode)

    monkeypatch.setattr(direct_io.os, "open", refusing)
    data = os.urandom(5000)
    write_direct(tmp_path / "file", pieces_of(data), 5000)
    assert bytes(read_digested(tmp_path / "file")[0]) == data


def test_writes_that_come_short_are_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda d, data, at, real=os.pwrite: real(d, data[:1000], at))
    data = os.urandom(9000)
    write_direct(tmp_path / "file", pieces_of(data), 9000)
    assert (tmp_path / "file").read_bytes() == data


def test_reads_that_come_short_are_completed(tmp_path, monkeypatch):
    data = os.urandom(9000)
    (tmp_path / "file").write_bytes(data)
    monkeypatch.setattr(os, "preadv", lambda d, parts, at, real=os.preadv: real(d, [parts[0][:1000]], at))
    assert bytes(read_digested(tmp_path / "file")[0]) == data


def test_an_error_of_the_disk_is_no_refusal(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(OSError, match="broken"):
        write_direct(tmp_path / "file", pieces_of(b"x" * 5000), 5000)


def test_a_write_that_is_called_off_stops_between_two_pieces(tmp_path):
    asked = []

    def is_called_off():
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(AbandonedError):
        write_direct(
            tmp_path / "file", pieces_of(b"x" * 9 * BLOCK_BYTES), 9 * BLOCK_BYTES, is_called_off=is_called_off
        )
    assert len(asked) == 3


def test_a_file_that_is_there_already_is_left_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_direct(tmp_path / "file", pieces_of(b"new"), 3)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_link_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="symbolic"):
        read_digested(tmp_path / "link")


def test_new_files_have_ordinary_permissions(tmp_path):
    former = os.umask(0o027)
    try:
        os.close(open_new(tmp_path / "file"))
    finally:
        os.umask(former)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_cut_is_read_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert read_at(descriptor, memoryview(host_memory(4096)), 0) == 100
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("point", ["checkpoint.data.written", "checkpoint.data.synced"])
def test_the_failpoints_of_data_are_hit(tmp_path, point):
    failpoints.arm(f"{point}=EIO")
    try:
        with pytest.raises(OSError, match="injected"):
            write_direct(tmp_path / "file", pieces_of(b"x"), 1)
    finally:
        failpoints.arm("")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem")
def test_a_full_disk_is_told_as_such(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(SpaceError, match="file"):
            write_direct(tmp_path / "file", pieces_of(b"x" * (1 << 20)), 1 << 20)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
