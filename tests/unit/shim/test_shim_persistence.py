"""A record outlasts a disk that is full for a while, and not for ever."""

from __future__ import annotations

import pytest

from trainerd.contract import records
from trainerd.contract.records import VoidRecord
from trainerd.errors import SpaceError
from trainerd.shim.persistence import RETRY_S, write_persistently


class FakeClock:
    def __init__(self):
        self.now_s = 0.0

    def wall_s(self):
        return self.now_s

    def monotonic_s(self):
        return self.now_s

    def pause(self, seconds):
        self.now_s += seconds


@pytest.mark.parametrize("error", [SpaceError("full"), OSError(5, "Input/output error")])
def test_a_write_is_tried_again_until_it_succeeds_and_said_once(tmp_path, monkeypatch, capfd, error):
    clock, really_write = FakeClock(), records.write

    def write(path, record):
        if clock.now_s < 60:
            raise error
        really_write(path, record)

    monkeypatch.setattr(records, "write", write)
    path = tmp_path / "void.json"
    write_persistently(path, VoidRecord("why"), clock, patience_s=3600, pause=clock.pause)
    assert records.read(path, VoidRecord) == VoidRecord("why")
    assert clock.now_s == 60
    assert capfd.readouterr().err.count("\n") == 2


def test_when_the_budget_is_spent_the_last_error_is_raised(tmp_path, monkeypatch):
    def write(*_):
        raise SpaceError("full")

    monkeypatch.setattr(records, "write", write)
    clock = FakeClock()
    with pytest.raises(SpaceError):
        write_persistently(tmp_path / "x", VoidRecord(""), clock, patience_s=10, pause=clock.pause)
    assert clock.now_s == pytest.approx(10, abs=RETRY_S)
