"""What lasts is said once, and then at a bounded rate."""

from __future__ import annotations

import structlog

from trainerd.supervisor.log.logger import configure_logging
from trainerd.supervisor.log.repetition import KEYS_MAX, SAY_AGAIN_S, RepeatLimit

FULL = {"event": "journal.full", "reason": "the disk is full: 4096 bytes left"}


def test_it_is_said_at_once_and_again_after_a_while_with_a_count():
    limit = RepeatLimit()
    assert limit.note(FULL, 0.0) == 0
    again = [
        limit.note({**FULL, "reason": f"the disk is full: {left} bytes left"}, left / 10)
        for left in range(99)
    ]
    assert again == [None] * 99
    assert limit.note(FULL, SAY_AGAIN_S + 1) == 99


def test_other_reasons_and_other_jobs_are_news():
    limit = RepeatLimit()
    assert limit.note(FULL, 0.0) == 0
    assert limit.note({**FULL, "reason": "the folder is read-only"}, 1.0) == 0
    assert [limit.note({"event": "job.paused", "job": job, "reason": "no room"}, 1.0) for job in "aba"] == [
        0,
        0,
        None,
    ]


def test_after_its_end_the_next_one_is_news():
    limit = RepeatLimit()
    assert limit.note(FULL, 0.0) == 0
    assert limit.note({"event": "journal.written-again"}, 20.0) == 0
    assert limit.note(FULL, 21.0) == 0


def test_what_is_not_bounded_is_never_held_back():
    limit = RepeatLimit()
    assert [
        limit.note({"event": "attempt.failed", "job": "a", "reason": "exit 1"}, 0.0) for _ in range(3)
    ] == [0, 0, 0]
    assert limit.note({"event": "unknown"}, 0.0) == 0


def test_what_is_kept_is_bounded():
    limit = RepeatLimit()
    for number in range(KEYS_MAX + 10):
        limit.note({"event": "job.paused", "job": f"job-{number}"}, 0.0)
    assert len(limit._said) == KEYS_MAX


def test_the_log_holds_repetitions_back(tmp_path):
    path = tmp_path / "x.jsonl"
    with configure_logging(path, stream=None):
        for _ in range(50):
            structlog.get_logger().error("journal.full", reason="no room\n  free some")
    (line,) = path.read_text().splitlines()
    assert '"reason": "no room; free some"' in line
