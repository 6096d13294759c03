"""The heartbeat page: a reader sees a whole beat or says that it does not know."""

import math
import threading

from trainerd.contract.heartbeat import HeartbeatWriter, Phase, read_heartbeat
from trainerd.contract.paths import RunPaths
from trainerd.contract.reached_before import furthest_step_before


def beat(writer, step, **changes):
    fields = {
        "step": step,
        "epoch": 0,
        "epochs": 2,
        "batch": step,
        "batches": 10,
        "checkpoint_step": -1,
        "loss": math.nan,
        "saves": 0,
        "resumed_step": 0,
    }
    writer.beat(Phase.STEP, **fields | changes)


def test_no_page_is_unknown(tmp_path):
    assert read_heartbeat(tmp_path / "heartbeat") is None


def test_a_page_without_a_beat_is_unknown(tmp_path):
    HeartbeatWriter(tmp_path / "heartbeat").close()
    assert read_heartbeat(tmp_path / "heartbeat") is None


def test_a_beat_is_read_as_written(tmp_path):
    writer = HeartbeatWriter(tmp_path / "heartbeat")
    beat(writer, 7, loss=0.25, checkpoint_step=5)
    seen = read_heartbeat(tmp_path / "heartbeat")
    assert (seen.phase, seen.beats, seen.step, seen.loss, seen.checkpoint_step) == (Phase.STEP, 1, 7, 0.25, 5)


def test_a_reader_never_sees_half_a_beat(tmp_path):
    writer = HeartbeatWriter(tmp_path / "heartbeat")
    beat(writer, 0)
    is_done = threading.Event()

    def write():
        for step in range(1, 30_000):
            beat(writer, step, epoch=step, saves=step)
        is_done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while not is_done.is_set():
        page = read_heartbeat(tmp_path / "heartbeat")
        if page is not None and page.step:
            assert page.step == page.epoch == page.batch == page.saves
            seen += 1
    thread.join()
    assert seen > 0


def test_a_foreign_file_is_unknown(tmp_path):
    (tmp_path / "heartbeat").write_bytes(b"x" * 4096)
    assert read_heartbeat(tmp_path / "heartbeat") is None


def test_the_longest_silences_are_kept_by_what_was_being_done(tmp_path, monkeypatch):
    """The first step counts to the start; a silence belongs to what was being done when it began."""
    now_s = iter([0.0, 5.0, 45.0, 46.0, 49.0, 49.5])
    monkeypatch.setattr("time.monotonic_ns", lambda: int(next(now_s) * 1e9))
    writer = HeartbeatWriter(tmp_path / "heartbeat")
    beat(writer, 0)
    beat(writer, 1)
    beat(writer, 2)
    beat(writer, 3)
    beat(writer, 4)
    silences_s = read_heartbeat(tmp_path / "heartbeat").longest_silences_s
    assert (silences_s[Phase.START], silences_s[Phase.STEP]) == (40.0, 3.0)


def test_a_page_of_a_writer_that_knew_no_silences_is_read(tmp_path):
    """A job's own trainerd may be older than the supervisor's."""
    writer = HeartbeatWriter(tmp_path / "heartbeat")
    beat(writer, 7)
    page = (tmp_path / "heartbeat").read_bytes()
    (tmp_path / "heartbeat").write_bytes(page[:112].ljust(4096, b"\0"))
    seen = read_heartbeat(tmp_path / "heartbeat")
    assert (seen.step, set(seen.longest_silences_s)) == (7, {0.0})


def test_every_second_between_beats_is_counted_once(tmp_path, monkeypatch):
    """By what was being done, and of the steps those apart that an earlier attempt had done."""
    now_s = iter([0.0, 5.0, 7.0, 8.0, 10.0, 14.0])
    monkeypatch.setattr("time.monotonic_ns", lambda: int(next(now_s) * 1e9))
    writer = HeartbeatWriter(tmp_path / "heartbeat", furthest_step=3)
    for step in range(5):
        beat(writer, step)
    seen = read_heartbeat(tmp_path / "heartbeat")
    assert (seen.spent_s[Phase.START], seen.spent_s[Phase.STEP]) == (7.0, 7.0)
    assert seen.repeated_s == 3.0, "steps 2 and 3 were done before; the first counts to the start"
    assert sum(seen.spent_s) == 14.0
    assert seen.opened_wall_s > 1e9


def test_a_second_session_of_an_attempt_goes_on_with_the_page(tmp_path, monkeypatch):
    now_s = iter([0.0, 5.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr("time.monotonic_ns", lambda: int(next(now_s) * 1e9))
    first = HeartbeatWriter(tmp_path / "heartbeat")
    beat(first, 1)
    beat(first, 2)
    opened_wall_s = read_heartbeat(tmp_path / "heartbeat").opened_wall_s
    beat(HeartbeatWriter(tmp_path / "heartbeat"), 3)
    seen = read_heartbeat(tmp_path / "heartbeat")
    assert (sum(seen.spent_s), seen.spent_s[Phase.STEP]) == (11.0, 1.0)
    assert seen.opened_wall_s == opened_wall_s


def test_a_page_that_was_never_opened_says_no_times(tmp_path):
    writer = HeartbeatWriter(tmp_path / "heartbeat")
    beat(writer, 7)
    page = (tmp_path / "heartbeat").read_bytes()
    (tmp_path / "heartbeat").write_bytes(page[:160].ljust(4096, b"\0"))
    seen = read_heartbeat(tmp_path / "heartbeat")
    assert (seen.step, seen.opened_wall_s, sum(seen.spent_s)) == (7, 0.0, 0.0)


def test_how_far_earlier_attempts_came_is_handed_on(tmp_path):
    run = RunPaths(tmp_path)
    for number in (1, 2, 4):
        run.attempt(number).root.mkdir(parents=True)
    beat(HeartbeatWriter(run.attempt(1).heartbeat(0)), 30)
    second = run.attempt(2)
    beat(HeartbeatWriter(second.heartbeat(0), furthest_step=furthest_step_before(second, rank=0)), 20)
    assert furthest_step_before(run.attempt(1), rank=0) == 0
    assert furthest_step_before(run.attempt(4), rank=0) == 30, "attempt 3 left no page"
