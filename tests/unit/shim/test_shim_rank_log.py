"""A log is bounded, and nothing that happens to it reaches the rank."""

from __future__ import annotations

import os

import pytest

from trainerd.shim.rank_log import KEPT, LOOK_S_MAX, LOOK_S_MIN, RankLog, rotated_paths

LIMIT_BYTES = 100


@pytest.fixture
def log(tmp_path):
    log = RankLog(tmp_path / "logs" / "rank-00000.log", size_bytes_max=LIMIT_BYTES)
    yield log
    log.close()


def write(log, text):
    os.write(log.descriptor, text.encode())


def test_a_line_of_the_shims_own_stands_on_a_line_of_its_own(log):
    log.say("first")
    write(log, "torn")
    log.say("second")
    assert log.path.read_text() == "first\ntorn\nsecond\n"


def test_a_small_log_is_left_alone(log):
    write(log, "x" * (LIMIT_BYTES - 1))
    assert not log.rotate_if_large()
    assert list(log.path.parent.iterdir()) == [log.path]


def test_rotation_keeps_the_newest_copies_and_loses_no_line(log):
    written = []
    for serial in range(KEPT + 2):
        written.append(f"{serial}" * LIMIT_BYTES)
        write(log, written[-1])
        assert log.rotate_if_large()
    assert [path.read_text() for path in rotated_paths(log.path)] == written[:-4:-1]
    assert log.path.read_bytes() == b""
    assert len(list(log.path.parent.iterdir())) == KEPT + 1


def test_a_rank_goes_on_appending_to_the_same_file_after_a_rotation(log):
    write(log, "x" * LIMIT_BYTES)
    log.rotate_if_large()
    write(log, "after")
    assert log.path.read_text() == "after"


def test_a_log_deleted_by_hand_stays_bounded_and_is_not_resurrected(log):
    log.path.unlink()
    write(log, "x" * LIMIT_BYTES)
    assert log.rotate_if_large()
    assert os.fstat(log.descriptor).st_size == 0
    assert list(log.path.parent.iterdir()) == []


def test_a_rotation_that_fails_leaves_the_log_as_it_was(log, monkeypatch):
    write(log, "x" * LIMIT_BYTES)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pread", refuse)
    assert not log.rotate_if_large()
    assert log.path.read_text() == "x" * LIMIT_BYTES
    assert list(log.path.parent.iterdir()) == [log.path]


def test_a_log_that_cannot_be_opened_costs_the_output_and_not_the_job(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file" / "rank.log", tmp_path, tmp_path / "pipe"):
        log = RankLog(path, size_bytes_max=LIMIT_BYTES)
        write(log, "x" * 1_000_000)
        log.say("more")
        assert not log.rotate_if_large()
        log.close()


def test_what_came_faster_than_it_was_looked_at_is_dropped_and_not_kept(log):
    """However much a rank wrote between two looks, the copies stay within their limit."""
    for serial in range(KEPT + 1):
        write(log, f"{serial}" * (50 * LIMIT_BYTES) + "newest")
        assert log.rotate_if_large()
    copies = [path.read_bytes() for path in rotated_paths(log.path)]
    assert all(len(copy) < 2 * LIMIT_BYTES for copy in copies)
    assert all(copy.endswith(b"newest") for copy in copies)
    assert b"bytes before this were dropped" in copies[0]
    assert log.path.read_bytes() == b""


def test_a_log_is_looked_at_as_often_as_its_rank_fills_it(tmp_path):
    log = RankLog(tmp_path / "rank.log", size_bytes_max=1000)
    assert log.next_look_s(0.0) == LOOK_S_MAX
    os.write(log.descriptor, b"x" * 400)
    assert log.next_look_s(0.2) == pytest.approx(0.3)  # 2000 bytes a second, and 600 are left
    os.write(log.descriptor, b"x" * 400)
    assert log.next_look_s(0.21) == LOOK_S_MIN
    assert log.next_look_s(1.0) == LOOK_S_MAX
    log.close()


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_so_many_copies_are_kept(tmp_path, copies):
    log = RankLog(tmp_path / "rank.log", size_bytes_max=10, copies=copies)
    for _ in range(4):
        os.write(log.descriptor, b"x" * 10)
        assert log.rotate_if_large()
    log.close()
    assert len([path for path in tmp_path.iterdir() if path.name != "rank.log"]) == copies


def noted(log):
    return [int(line.split()[1]) for line in log.path.with_suffix(".times").read_text().splitlines()]


def test_it_is_noted_when_a_log_was_written(log):
    log.say("start")
    os.utime(log.path, (100.0, 100.0))
    write(log, "abc\n")
    os.utime(log.path, (200.5, 200.5))
    log.next_look_s(0.0)
    log.next_look_s(1.0)
    assert noted(log) == [6, 10]
    assert log.path.with_suffix(".times").read_text().splitlines()[1] == "200.500 10"


def test_what_a_killed_shim_did_not_note_has_the_time_of_the_last_write(log):
    write(log, "abc\n")
    os.utime(log.path, (300.0, 300.0))
    RankLog(log.path, size_bytes_max=LIMIT_BYTES).close()
    assert log.path.with_suffix(".times").read_text() == "300.000 4\n"


def test_a_rotated_log_has_the_times_of_its_new_lines_only(log):
    write(log, "x" * LIMIT_BYTES)
    log.next_look_s(0.0)
    assert log.rotate_if_large()
    write(log, "new\n" * 30)
    log.next_look_s(1.0)
    assert noted(log) == [120]
