"""What ranks agree to hold during an evaluation is the boundary before it, not what it has changed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from trainerd.training.distributed.agreement import Alone, JointDecision  # noqa: E402
from trainerd.training.engine.run_saves import RunSaves  # noqa: E402

pytestmark = pytest.mark.torch


def test_a_boundary_that_is_staged_is_not_staged_again_while_the_script_evaluates(tmp_path, monkeypatch):
    decisions, staged = [], []
    stage = RunSaves.stage

    def noted_stage(saves, reason):
        staged.append(reason)
        stage(saves, reason)

    def settle(_alone):
        due = list(decisions)
        decisions.clear()
        return due

    monkeypatch.setattr(RunSaves, "stage", noted_stage)
    monkeypatch.setattr(Alone, "settle", settle)
    with trainerd.session(tmp_path, every={"steps": 1000, "seconds": None, "epochs": None}) as session:
        model = torch.nn.Linear(2, 2)
        session.track(model=model)
        for _ in session.epochs(1):
            for batch in session.batches([torch.ones(2)] * 3):
                model(batch)
            before = len(staged)
            for _ in session.batches([1, 2], train=False):
                torch.rand(1)  # the state of the generator is another one than at the boundary
                decisions.append(JointDecision(4, "stage", "agreed"))
            assert session._run.saves.is_safe_here()
            assert staged[before:].count("agreed") == 0
            assert decisions == []
