"""The metric history: what a checkpoint counts on is durable."""

from __future__ import annotations

from trainerd.training.engine import history
from trainerd.training.engine.history import HistoryWriter


def test_the_name_of_a_new_history_is_durable_before_anything_is_written(tmp_path, monkeypatch):
    """A power cut once left a durable checkpoint whose history had no name: fsync of a file does not cover
    it."""
    synced = []
    monkeypatch.setattr(history, "sync_directory", synced.append)
    HistoryWriter(tmp_path / "metrics.jsonl").open().close()
    assert synced == [tmp_path]
