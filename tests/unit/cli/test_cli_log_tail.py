"""Following a log over everything that happens to logs."""

from __future__ import annotations

import os

import pytest

from trainerd.cli import log_tail
from trainerd.cli.log_tail import FollowedFile, last_lines_offset
from trainerd.cli.rank_logs import RankLogs
from trainerd.contract.paths import RunPaths


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rank-00000.log"


def append(path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("block", [1, 3, 4096])
@pytest.mark.parametrize("content", [b"", b"a\n", b"a", b"a\nbb\nccc\n", b"a\nbb\nccc", b"\n\n\n", b"a\n\n"])
@pytest.mark.parametrize("lines", [0, 1, 2, 3, 99])
def test_the_last_lines_are_those_that_splitlines_gives(path, monkeypatch, block, content, lines):
    monkeypatch.setattr(log_tail, "_BLOCK_BYTES", block)
    path.write_bytes(content)
    expected = b"".join(content.splitlines(keepends=True)[-lines:]) if lines else b""
    with path.open("rb") as file:
        assert content[last_lines_offset(file.fileno(), lines) :] == expected


def test_what_is_added_comes_once(path):
    append(path, b"one\ntwo\n")
    file = FollowedFile(path, lines=1)
    assert file.read_new() == b"two\n"
    assert file.read_new() == b""
    append(path, b"thr")
    append(path, b"ee\n")
    assert file.read_new() == b"three\n"


def test_a_file_that_appears_later_is_read_from_its_start(path):
    file = FollowedFile(path, lines=0)
    assert file.read_new() == b""
    append(path, b"one\n")
    assert file.read_new() == b"one\n"


@pytest.mark.parametrize("after", [b"new\n", b"something that is longer than what was there before\n"])
def test_copy_truncate_is_noticed_even_if_the_file_has_grown_beyond(path, after):
    append(path, b"something old\n")
    file = FollowedFile(path)
    file.read_new()
    os.truncate(path, 0)
    append(path, after)
    assert file.read_new() == after


def test_a_deleted_file_is_read_on_while_its_writer_has_it(path):
    with path.open("ab", buffering=0) as writer:
        file = FollowedFile(path)
        path.unlink()
        writer.write(b"still here\n")
        assert file.read_new() == b"still here\n"


def test_a_replaced_file_is_read_to_its_end_and_then_the_new_one(path):
    with path.open("ab", buffering=0) as writer:
        file = FollowedFile(path)
        path.rename(path.with_suffix(".1"))
        append(path, b"new\n")
        writer.write(b"old\n")
        assert [file.read_new(), file.read_new(), file.read_new()] == [b"old\n", b"new\n", b""]


def test_much_comes_in_chunks(path, monkeypatch):
    monkeypatch.setattr(log_tail, "CHUNK_BYTES", 4)
    append(path, b"123456")
    file = FollowedFile(path)
    assert [file.read_new(), file.read_new(), file.read_new()] == [b"1234", b"56", b""]


@pytest.fixture
def run(tmp_path):
    run = RunPaths(tmp_path)
    run.rank_log(0).parent.mkdir()
    return run


def test_one_rank_comes_as_it_is_even_within_a_line(run):
    append(run.rank_log(0), b"10%\r20%")
    logs = RankLogs(run)
    assert list(logs.read_new()) == [(0, b"10%\r20%")]


def test_several_ranks_are_mixed_by_whole_lines(run):
    append(run.rank_log(0), b"a\nhalf")
    append(run.rank_log(1), b"b\n")
    logs = RankLogs(run)
    assert list(logs.read_new()) == [(0, b"a\n"), (1, b"b\n")]
    append(run.rank_log(0), b" done\nnext")
    assert list(logs.read_new()) == [(0, b"half done\n")]
    assert list(logs.rest()) == [(0, b"next\n")]


def test_the_log_of_a_rank_that_appears_later_comes_whole(run):
    append(run.rank_log(0), b"1\n2\n")
    logs = RankLogs(run, lines=1)
    assert list(logs.read_new()) == [(0, b"2\n")]
    append(run.rank_log(1), b"1\n2\n")
    assert list(logs.read_new()) == [(1, b"1\n2\n")]


def test_only_the_rank_that_is_wanted_comes(run):
    append(run.rank_log(0), b"a\n")
    append(run.rank_log(1), b"b\n")
    assert list(RankLogs(run, rank=1).read_new()) == [(1, b"b\n")]


def test_other_files_in_the_folder_are_not_logs_of_ranks(run):
    append(run.rank_log(0).with_name("rank-00000.log.1"), b"a\n")
    append(run.rank_log(0).with_name("rank-x.log"), b"a\n")
    assert RankLogs(run).is_empty
