"""A score by which checkpoints are kept and that is never reported is said once, with what to do."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from trainerd.contract.policy import KeepBest  # noqa: E402
from trainerd.training.engine.score_watch import ScoreWatch  # noqa: E402

pytestmark = pytest.mark.torch

LATE = "keep_best: accuracy was not reported so far, so no checkpoint is kept by it"


@pytest.fixture
def said():
    return []


@pytest.fixture
def watch(said):
    return ScoreWatch(["accuracy"], find_unscored=lambda: ["accuracy"], say=said.append)


def test_two_checkpoints_without_a_score_are_said_once(watch, said):
    watch.boundary(1)
    assert said == []
    watch.boundary(2)
    watch.boundary(3, is_end=True)
    assert said == [f"trainerd: warning: {LATE}; call session.report(accuracy=…) at the end of an epoch"]


def test_what_is_reported_is_not_missing(watch, said):
    watch.reported({"accuracy": 1.0, "loss": 2.0})
    watch.boundary(9, is_end=True)
    assert said == []


def test_another_name_is_said_at_once(watch, said):
    watch.reported({"acuracy": 1.0})
    watch.boundary(0)
    assert said[0].endswith(
        "session.report is given acuracy: did you mean acuracy? name in keep_best what the script reports"
    )


def test_a_score_that_is_only_logged_is_named(watch, said):
    watch.logged(["loss", "accuracy"])
    watch.boundary(2)
    assert "session.log is given it: give it to session.report(accuracy=…) too" in said[0]


def test_a_run_that_ends_says_it_with_its_first_checkpoint(watch, said):
    watch.boundary(1, is_end=True)
    assert len(said) == 1


def test_a_score_of_an_earlier_attempt_is_not_missing(said):
    watch = ScoreWatch(["accuracy"], find_unscored=list, say=said.append)
    watch.boundary(2, is_end=True)
    assert said == []


def train(folder, *, epochs=3, log=(), report=(), **settings):
    with trainerd.session(folder / "run", keep_best=KeepBest("accuracy"), **settings) as session:
        model = torch.nn.Linear(2, 1)
        session.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        for epoch in session.epochs(epochs):
            for _ in session.batches(range(3)):
                session.log(loss=0.5, **dict.fromkeys(log, 0.5))
            if report:
                session.report(**dict.fromkeys(report, epoch))


@pytest.mark.parametrize(
    ("how", "remedy"),
    [
        ({}, "call session.report(accuracy=…)"),
        ({"log": ["accuracy"]}, "session.log is given it"),
        ({"report": ["top1"]}, "session.report is given top1"),
        ({"epochs": 1}, "call session.report(accuracy=…)"),
        ({"every": {"steps": 1, "epochs": None}}, "call session.report(accuracy=…)"),
    ],
)
def test_a_session_says_it_in_its_log(tmp_path, capfd, how, remedy):
    train(tmp_path, **how)
    said = [line for line in capfd.readouterr().err.splitlines() if "keep_best" in line]
    assert len(said) == 1
    assert LATE in said[0]
    assert remedy in said[0]


def test_a_session_that_reports_it_says_nothing_at_any_start(tmp_path, capfd):
    train(tmp_path, report=["accuracy", "other"])
    train(tmp_path, report=["accuracy", "other"])
    train(tmp_path, epochs=5)
    assert "keep_best" not in capfd.readouterr().err


def opened(folder, **settings):
    session = trainerd.session(folder / "run", keep_best=KeepBest("accuracy"), **settings)
    model = torch.nn.Linear(2, 1)
    session.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    return session


def test_it_is_said_at_the_end_of_the_first_epoch_with_other_scores(tmp_path, capfd):
    with opened(tmp_path) as session:
        for epoch in session.epochs(3):
            if epoch:
                assert LATE in capfd.readouterr().err
                break
            for _ in session.batches(range(3)):
                session.log(loss=0.5)
            session.report(top1=0.5)


def test_it_is_said_at_a_save_within_a_long_epoch(tmp_path, capfd):
    said = ""
    with opened(tmp_path, every={"steps": 1, "epochs": None}) as session:
        for _ in session.batches(range(100_000)):
            session.log(loss=0.5)
            if LATE in (said := said + capfd.readouterr().err):
                break  # in the middle of the epoch
    assert said.count(LATE) == 1
