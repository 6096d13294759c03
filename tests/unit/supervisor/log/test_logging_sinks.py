"""No log file and no reader can stop, end or slow down the supervisor."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from trainerd.supervisor.log import sinks
from trainerd.supervisor.log.sinks import RotatedFile, Stream

PATIENCE_S = 5.0


def lost(count: int) -> bytes:
    return b"lost %d\n" % count


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "x.jsonl"


@pytest.fixture
def sink(path):
    sink = RotatedFile(path, lost)
    yield sink
    sink.close()


def test_a_full_file_is_moved_aside_and_so_many_are_kept(path):
    sink = RotatedFile(path, lost, bytes_max=20, files_max=3)
    for number in range(10):
        sink.write(b"line %04d\n" % number)  # ten bytes each: two a file
    sink.close()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
        "x.jsonl": b"line 0008\nline 0009\n",
        "x.jsonl.1": b"line 0006\nline 0007\n",
        "x.jsonl.2": b"line 0004\nline 0005\n",
    }


def test_a_line_larger_than_a_file_is_written_whole(path):
    sink = RotatedFile(path, lost, bytes_max=10)
    sink.write(b"a line that is much longer\n")
    sink.close()
    assert path.read_bytes() == b"a line that is much longer\n"


def test_a_folder_that_refuses_the_move_loses_nothing(path, monkeypatch):
    sink = RotatedFile(path, lost, bytes_max=10)
    sink.write(b"line 0\n")

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(type(path), "replace", refuse)
    sink.write(b"line 1\n")
    sink.close()
    assert path.read_bytes() == b"line 0\nline 1\n"


def test_a_deleted_file_is_made_anew(path, sink):
    sink.write(b"before\n")
    path.unlink()
    path.parent.rmdir()
    sink.write(b"after\n")
    assert path.read_bytes() == b"after\n"


def test_a_file_that_somebody_rotated_is_let_go(path, sink):
    sink.write(b"before\n")
    path.rename(path.with_suffix(".old"))
    sink.write(b"after\n")
    assert path.read_bytes() == b"after\n"


def test_a_torn_last_line_is_ended_before_the_next(path, sink):
    path.parent.mkdir()
    path.write_bytes(b'{"half')
    sink.write(b"whole\n")
    assert path.read_bytes() == b'{"half\nwhole\n'


def test_a_full_disk_loses_lines_and_says_how_many(path, sink):
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    sink.write(b"1\n")
    sink.write(b"2\n")
    path.unlink()
    sink.write(b"3\n")
    sink.write(b"4\n")
    assert path.read_bytes() == b"lost 2\n3\n4\n"


@pytest.mark.parametrize("obstacle", ["folder", "fifo"])
def test_something_else_in_the_place_of_the_file_loses_lines_only(path, sink, obstacle):
    path.mkdir(parents=True) if obstacle == "folder" else (path.parent.mkdir(), os.mkfifo(path))
    for _ in range(10_000):
        sink.write(b"lost without a reader\n")


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with (
        os.fdopen(reader, "rb", buffering=0) as reader_file,
        os.fdopen(writer, "wb", buffering=0) as writer_file,
    ):
        yield reader_file, writer_file


@pytest.fixture(params=["own descriptor", "shared descriptor"])
def stream(request, pipe, monkeypatch):
    if request.param == "shared descriptor":  # as for a socket, or a terminal that is not ours to open
        monkeypatch.setattr(sinks.stat, "S_ISFIFO", lambda _: False)
    stream = Stream(pipe[1].fileno(), lost)
    yield stream
    stream.close()


def test_a_reader_who_does_not_read_makes_nobody_wait(pipe, stream):
    began_s = time.monotonic()
    for _ in range(2000):
        stream.write(b"x" * 99 + b"\n")
    assert time.monotonic() - began_s < PATIENCE_S


def test_a_reader_who_comes_back_learns_how_many_lines_were_lost(pipe, stream):
    reader, _ = pipe
    for _ in range(60):
        stream.write(b"x" * 99 + b"\n")
    kept = reader.read(10_000).count(b"x" * 99 + b"\n")
    stream.write(b"again\n")
    assert reader.read(10_000).lstrip(b"\n") == b"lost %d\nagain\n" % (60 - kept)


def test_a_reader_who_left_is_forgotten(pipe, stream):
    reader, _ = pipe
    reader.close()
    stream.write(b"to nobody\n")
    stream.write(b"to nobody\n")


def test_the_flags_of_a_shared_descriptor_stay_as_they_are(pipe):
    before = fcntl.fcntl(pipe[1], fcntl.F_GETFL)
    stream = Stream(pipe[1].fileno(), lost)
    stream.write(b"x\n")
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) == before
    stream.close()


def test_a_closed_standard_output_is_no_error():
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.close(descriptor)
    Stream(descriptor, lost).write(b"x\n")
