"""A tracker that fails ends no training, is said once, and gets all points once it works again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import trainerd
from trainerd.errors import CorruptError
from trainerd.training.integrations import history_curve
from trainerd.training.integrations.history_curve import RETRY_S_MIN, HistoryCurve

pytestmark = pytest.mark.torch

STEPS = 9


class Server(HistoryCurve):
    """A tracker that fails while it is down, and what it holds."""

    NAME = "server"

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self.points: list[int] = []
        self.tries = 0
        self.error: Exception | None = None

    def begin(self) -> None:
        self.points = []
        self._try()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._try()
        self.points.append(step)

    def flush(self) -> None: ...

    def end(self) -> None:
        self._try()

    def _try(self) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(history_curve, "time", found)
    return found


def train(run: Path, server: Server, down: range, up_again_at: int | None, clock: Clock) -> int:
    """Run all steps; return how many were taken."""
    steps = 0
    with trainerd.session(run, every={"steps": 4, "seconds": None, "epochs": None}, strict=False) as session:
        session.follow_history(server)
        for _ in session.epochs(1):
            for number in session.batches(range(STEPS)):
                server.error = ConnectionError("no route\x1b[2J") if number in down else None
                if number == up_again_at:
                    clock.now_s += RETRY_S_MIN
                session.log(loss=number)
                steps += 1
    return steps


@pytest.mark.parametrize("down", [range(1), range(3, 5), range(STEPS)], ids=["first", "between", "all"])
def test_training_goes_on_and_the_points_come_later(
    tmp_path: Path, clock: Clock, capfd: pytest.CaptureFixture[str], down: range
) -> None:
    server = Server(tmp_path)
    assert train(tmp_path, server, down, down.stop + 1, clock) == STEPS
    said = capfd.readouterr().err
    assert said.count("server fails, and training goes on without it: ConnectionError: no route") == 1
    assert "\x1b" not in said
    if down.stop < STEPS:
        assert said.count("server takes points again, and has all of them") == 1
    assert server.points == ([] if down.stop == STEPS else list(range(1, STEPS + 1)))


def test_one_that_is_down_is_not_tried_at_each_step(tmp_path: Path, clock: Clock) -> None:
    server = Server(tmp_path)
    train(tmp_path, server, range(STEPS), None, clock)
    assert server.tries == 3, "the beginning, the first point, and the end"


def test_one_that_comes_back_by_the_end_gets_all_points_then(tmp_path: Path, clock: Clock) -> None:
    server = Server(tmp_path)
    train(tmp_path, server, range(2, 4), None, clock)
    assert server.points == list(range(1, STEPS + 1))


def test_a_damaged_file_of_the_run_is_an_error(tmp_path: Path, clock: Clock) -> None:
    server = Server(tmp_path)
    server.error = CorruptError("id: damaged")
    with pytest.raises(CorruptError):
        server.line(b'{"format": "x"}\n')
