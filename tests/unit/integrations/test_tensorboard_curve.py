"""The TensorBoard events of a run that was interrupted are those of an undisturbed one, point by point."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import pytest

import trainerd
from tests.support.in_process import Crash
from trainerd.errors import UserError
from trainerd.training.engine.run_saves import RunSaves

pytest.importorskip("tensorboard", reason="tensorboard is not installed")

from tests.support.event_files import points
from trainerd.integrations.tensorboard import follow

pytestmark = pytest.mark.torch


def crash_if(is_there: bool) -> None:
    if is_there:
        raise Crash


def train(run: Path, folder: Path | None = None, *, crash_at: int | None = None) -> None:
    """Make one attempt, which may crash after a step that no checkpoint holds."""
    with (
        mock.patch.object(RunSaves, "flush_held", lambda saves: saves.newest),
        trainerd.session(run, every={"steps": 3, "seconds": None, "epochs": None}, strict=False) as session,
    ):
        follow(session, folder)
        for epoch in session.epochs(2):
            for number in session.batches(range(5)):
                session.log(loss=1 / (session.step + 1), number=math.nan if number == 2 else number)
                crash_if(session.step == crash_at)
            session.report(score=epoch)


def test_kills_lose_and_double_no_point(tmp_path: Path) -> None:
    train(tmp_path / "plain")
    for crash_at in (1, 4, 5, 8):
        with pytest.raises(Crash):
            train(tmp_path / "crashed", crash_at=crash_at)
    train(tmp_path / "crashed")
    found = points(tmp_path / "crashed" / "tensorboard")
    assert repr(found) == repr(points(tmp_path / "plain" / "tensorboard"))
    assert [step for tag, step, _ in found if tag == "loss"] == list(range(1, 11))
    assert [step for tag, step, _ in found if tag == "report/score"] == [5, 10]


def test_events_of_others_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "events.out.tfevents.1.other"
    other.write_bytes(b"")
    with pytest.raises(Crash):
        train(tmp_path / "run", tmp_path, crash_at=4)
    train(tmp_path / "run", tmp_path)
    assert other.exists()
    assert len(list(tmp_path.glob("events.*"))) == 2


def test_a_tracker_that_comes_late_is_an_error(tmp_path: Path) -> None:
    with trainerd.session(tmp_path) as session:
        session.resume()
        with pytest.raises(UserError, match="before the first epoch"):
            follow(session)
