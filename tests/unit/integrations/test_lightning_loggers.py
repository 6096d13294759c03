"""What the run folder keeps of a trainer's loggers, for an attempt that finds no checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from trainerd.training.integrations.lightning_loggers import (
    VERSIONS,
    loggers_state,
    put_back_loggers,
    record_versions,
    recorded_loggers,
)

pytestmark = pytest.mark.torch


class Csv:
    version = 3


class Nameless:
    version = None


def trainer(*loggers: object, is_first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(loggers=list(loggers), is_global_zero=is_first)


def test_the_version_of_a_logger_is_there_before_any_checkpoint(tmp_path):
    record_versions(trainer(Csv(), Nameless()), tmp_path)
    (found,) = recorded_loggers(tmp_path)
    assert (found["kind"], found["version"], len(found["rows"])) == ("Csv", 3, 0)


def test_only_the_first_rank_notes_it(tmp_path):
    record_versions(trainer(Csv(), is_first=False), tmp_path)
    assert recorded_loggers(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b'[["Csv"]]', b"\xff", b"[" * 70000])
def test_an_unreadable_note_counts_as_none(tmp_path, content):
    (tmp_path / VERSIONS).write_bytes(content)
    assert recorded_loggers(tmp_path) == []


class CsvExperiment:
    def __init__(self, path: Path) -> None:
        self.metrics_file_path = str(path)
        self.metrics_keys: list[str] = []
        self.metrics: list[dict[str, float]] = []

    def save(self) -> None: ...


@pytest.mark.parametrize("before", [b"", b"loss,step\n0.5,1\n"], ids=["no rows", "a row"])
def test_rows_that_were_written_after_the_checkpoint_are_removed(before, tmp_path):
    file = tmp_path / "metrics.csv"
    if before:
        file.write_bytes(before)
    logger = Csv()
    logger.experiment = CsvExperiment(file)
    saved = loggers_state(trainer(logger))
    file.write_bytes(before + b"0.4,2\n")
    put_back_loggers(trainer(logger), saved)
    assert (file.read_bytes() if file.exists() else b"") == before
