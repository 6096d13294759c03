"""The harness's own reader of histories, and its ledger of samples."""

import json
from collections import Counter

from chaos.second_history import read_history, read_samples
from trainerd.contract.metric_history import HEADER, encode_line


def test_lines_behind_a_resume_count_and_those_it_supersedes_do_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = HEADER + encode_line({"step": 1, "loss": 0.5})
    marker = {"resume": {"attempt": 2, "checkpoint": "c", "step": 1, "keep_bytes": len(kept)}}
    lost = encode_line({"step": 2, "loss": 0.4}) + b'{"step": 3, "lo'
    again = encode_line({"step": 2, "loss": 0.3}) + encode_line({"report": True, "step": 2, "accuracy": 1.0})
    path.write_bytes(kept + lost + b"\n" + encode_line(marker) + again)
    history = read_history(path)
    assert [row["loss"] for row in history.rows] == [0.5, 0.3]
    assert [row["loss"] for row in history.lost] == [0.4]
    assert history.lines[-1]["accuracy"] == 1.0
    assert history.resumes[0]["attempt"] == 2


def test_of_a_step_that_was_run_again_the_last_line_counts(tmp_path):
    path = tmp_path / "samples-00000.jsonl"
    lines = [
        {"attempt": 1, "step": 1, "epoch": 0, "samples": [0, 1], "monotonic_s": 1.0},
        {"attempt": 1, "step": 2, "epoch": 0, "samples": [9], "monotonic_s": 2.0},
        {"attempt": 2, "step": 2, "epoch": 0, "samples": [2], "monotonic_s": 5.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = read_samples([path])
    assert samples.by_epoch == {0: Counter([0, 1, 2])}
    assert [(one.attempt, one.first_step, one.last_step) for one in samples.stretches] == [
        (1, 1, 2),
        (2, 2, 2),
    ]
