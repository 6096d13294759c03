"""A metric of keep_best that no checkpoint has is shown by `trainerd status` and `trainerd prune`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.support.checkpoints import commit
from tests.support.fake_control import MNIST
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli import prune
from trainerd.cli.missing_scores import missing_scores
from trainerd.cli.status import job_lines
from trainerd.contract import codec
from trainerd.contract.durable import write_file
from trainerd.contract.paths import StatePaths
from trainerd.contract.policy import RETENTION_FORMAT, KeepBest, RetentionPolicy

LINE = "no checkpoint has a score accuracy: the script has to call session.report(accuracy=…)"


@pytest.fixture
def state(tmp_path):
    state = StatePaths(tmp_path / "state")
    root = state.run("mnist").root
    root.mkdir(parents=True)
    keep = RetentionPolicy(keep_best=(KeepBest("accuracy"), KeepBest("loss", mode="min")))
    path = state.run("mnist").retention
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, codec.to_json(keep, RETENTION_FORMAT))
    return state


def save(state, step, **fields):
    store = CheckpointStore.of_run(state.run("mnist"))
    with store.lock():
        commit(store, step, **fields)


def test_a_metric_is_missing_when_two_checkpoints_are_without(state):
    run = state.run("mnist")
    assert missing_scores(run) == ()
    save(state, 1, scores={"loss": 2.0})
    assert missing_scores(run) == ()
    save(state, 2)
    assert missing_scores(run) == ("accuracy",)
    save(state, 3, scores={"accuracy": float("nan")})
    assert missing_scores(run) == ("accuracy",)
    save(state, 4, scores={"accuracy": 0.5})
    assert missing_scores(run) == ()


def test_the_final_checkpoint_alone_is_enough(state):
    save(state, 1, is_final=True)
    assert missing_scores(state.run("mnist")) == ("accuracy", "loss")


def test_a_run_that_says_nothing_readable_shows_nothing(state):
    save(state, 1, is_final=True)
    state.run("mnist").retention.write_text("{")
    assert missing_scores(state.run("mnist")) == ()


def test_status_has_a_line_of_it():
    (line,) = [each for each in job_lines(MNIST, 0.0, unscored=["accuracy"]) if "keep_best" in each]
    assert line.split(maxsplit=1)[1] == LINE
    assert not any("keep_best" in each for each in job_lines(MNIST, 0.0))


def test_prune_says_it_below_its_plan(state):
    save(state, 1, scores={"loss": 2.0})
    save(state, 2)
    shown = CliRunner().invoke(prune.command, ["mnist", "--dry-run", "--state", str(state.root)])
    assert shown.output.splitlines()[-1] == f"keep_best: {LINE}"
