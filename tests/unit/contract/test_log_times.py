"""Times beside a log: which line was written when, over rotation and thinning."""

from __future__ import annotations

import os

import pytest

from trainerd.contract.log_times import LogTimes, LogTimesWriter


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "rank-00000.log"
    path.write_bytes(b"x" * 30)
    os.utime(path, (500.0, 500.0))
    return path


def times(log):
    return LogTimes(log, log.with_suffix(".times"))


def test_a_line_has_the_first_time_at_which_it_was_there(log):
    writer = LogTimesWriter(log.with_suffix(".times"))
    for wall_s, size in ((100.25, 10), (101.0, 10), (102.0, 20)):
        writer.note(wall_s, size)
    found = times(log)
    assert [found.noted(end) for end in (1, 10, 11, 20, 21)] == [100.25, 100.25, 102.0, 102.0, None]
    assert found.at(21) == 500.0  # written after the newest note: the last write
    writer.note(103.0, 30)
    assert found.at(21) == 103.0


def test_without_notes_no_time_is_made_up(log):
    assert times(log).at(1) is None


def test_a_log_that_was_emptied_begins_again(log):
    writer = LogTimesWriter(log.with_suffix(".times"))
    writer.note(100.0, 900)
    writer.note(101.0, 10)
    assert times(log).noted(5) == 101.0
    writer.restart()
    writer.note(102.0, 10)
    assert times(log).noted(5) == 102.0


def test_a_second_writer_goes_on_from_the_first(log):
    LogTimesWriter(log.with_suffix(".times")).note(100.0, 10)
    LogTimesWriter(log.with_suffix(".times")).note(101.0, 10)
    assert log.with_suffix(".times").read_bytes() == b"100.000 10\n"


def test_the_file_is_bounded_and_keeps_its_newest_entry(log):
    path = log.with_suffix(".times")
    writer = LogTimesWriter(path, size_bytes_max=200)
    for number in range(1, 100):
        writer.note(float(number), number)
    assert path.stat().st_size <= 200
    found = times(log)
    assert found.noted(99) == 99.0
    assert 1 <= (found.noted(1) or 0) < 99


@pytest.mark.parametrize("text", [b"\xff\n", b"nan 5\n", b"inf 5\n", b"1 -5\n", b"1 5e3\n", b"1\n", b"\n"])
def test_what_is_no_entry_is_passed_over(log, text):
    log.with_suffix(".times").write_bytes(text + b"100.0 10\n")
    assert times(log).noted(5) == 100.0


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    writer = LogTimesWriter(tmp_path / "missing" / "rank-00000.times")
    writer.note(1.0, 5)
    writer.restart()
