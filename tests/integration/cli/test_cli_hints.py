"""Mistakes that are answered with what is there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.fake_control import job
from trainerd.cli.export import _check_metric
from trainerd.errors import UserError


def test_the_dry_run_of_a_removal_names_the_file_of_a_broken_spec(trainerd, supervisor, jobs_dir):
    (jobs_dir / "bad.yaml").write_text("comand: x\n")
    supervisor.jobs["bad"] = job("bad", "rejected", spec_path="")
    assert f"- {jobs_dir / 'bad.yaml'}" in trainerd("rm", "bad", "--dry-run").stdout
    assert (jobs_dir / "bad.yaml").exists()


def store(*scores: dict[str, float]):
    checkpoints = [SimpleNamespace(manifest=SimpleNamespace(scores=each)) for each in scores]
    return SimpleNamespace(directory="/c", checkpoints=lambda: checkpoints)


def test_an_unknown_score_lists_those_that_there_are():
    _check_metric(store({"accuracy": 1.0}, {"f1": 0.5}), "f1")
    with pytest.raises(UserError) as refused:
        _check_metric(store({"accuracy": 1.0}, {"f1": 0.5}), "acuracy")
    assert "did you mean accuracy? there are: accuracy, f1" in str(refused.value)
    with pytest.raises(UserError, match=r"session\.report"):
        _check_metric(store({}), "accuracy")
