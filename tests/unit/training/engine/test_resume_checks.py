"""What is said at a resume about the checkpoint, the history and the program."""

import json
import shutil

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.support.in_process import attempt
from tests.support.in_process_drain import drained_at
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume, summary
from trainerd.contract.verdict import Reason

pytestmark = pytest.mark.torch

L = torch.optim.lr_scheduler


class Script:
    def __init__(self):
        self.epochs = 2
        self.lr = 0.1
        self.scheduler = None
        self.before = lambda _scheduler: None
        self.after = lambda _scheduler: None
        self.rates = []

    def __call__(self, session, tick):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
        scheduler = self.scheduler(optimizer) if self.scheduler else None
        session.track(model=model, optimizer=optimizer, **({"plan": scheduler} if scheduler else {}))
        self.before(scheduler)
        session.resume()
        self.after(scheduler)
        loader = DataLoader(TensorDataset(torch.ones(24, 3)), 4)
        for _ in session.epochs(self.epochs):
            for (points,) in session.batches(loader):
                optimizer.zero_grad()
                loss = model(points).pow(2).mean()
                loss.backward()
                optimizer.step()
                self.rates.append(optimizer.param_groups[0]["lr"])
                if scheduler:
                    scheduler.step()
                session.log(loss=loss)
                tick()


@pytest.fixture
def script():
    return Script()


def reasons(run, kind):
    return [each for each in read_resume(run.resume).reasons if each.kind == kind]


def damage(run, step):
    """Damage all checkpoints of a step: of the last one, there are that of the epoch and the final one."""
    for path in run.checkpoints.glob(f"step-{step:09d}*/*.safetensors"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_fallback_from_a_damaged_checkpoint_is_said(run, script, capfd):
    assert attempt(run.root, script, keep_last=None)
    steps = sorted({each.step for each in CheckpointStore.of_run(run).checkpoints()})
    damage(run, 12)
    script.epochs = 3
    assert attempt(run.root, script)
    final, found = sorted(reasons(run, "fallback"), key=lambda reason: reason.where, reverse=True)
    used = f"step-{steps[-2]:09d}"
    assert (final.where, found.where) == ("step-000000012.1", "step-000000012")
    assert found.detail.startswith("it is damaged: rank-00000.safetensors has digest")
    between = "1 step" if steps[-2] == 11 else f"{12 - steps[-2]} steps"
    assert f"{used} is used instead, and {between} between them are run again" in found.detail
    assert f"resume: step-000000012: {found.detail}" in capfd.readouterr().err
    assert read_resume(run.resume).verdict == "exact"  # the steps in between were compared


def test_a_fallback_without_a_step_to_compare_is_not_called_exact(run, script, capfd):
    assert attempt(run.root, script, keep_last=None)
    damage(run, 12)
    run.metrics.write_bytes(b"")
    script.epochs = 3
    assert attempt(run.root, script)
    assert read_resume(run.resume).verdict == "suspect"
    assert "all is" not in capfd.readouterr().err


def test_a_run_whose_checkpoints_are_all_damaged_says_that_it_begins_at_step_0(run, script):
    assert not attempt(run.root, script, crash_at=5)
    damage(run, 3)
    assert attempt(run.root, script)
    (found,) = reasons(run, "fallback")
    assert "the run begins at step 0, and 3 steps between them are run again" in found.detail
    assert read_resume(run.resume).verdict == "exact"


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "history-short", "truncated: 100 bytes"),
        (lambda path: path.unlink(), "history-missing", "missing: 0 bytes"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b" ")),
            "history-altered",
            "not the file",
        ),
    ],
)
def test_a_history_that_lacks_rows_of_the_checkpoint_is_said(run, script, capfd, change, kind, text):
    assert not attempt(run.root, script, crash_at=6)
    change(run.metrics)
    assert attempt(run.root, script)
    (found,) = reasons(run, kind)
    assert (found.where, text in found.detail) == ("metrics.jsonl", True)
    assert read_resume(run.resume).verdict == "suspect"
    assert "resume: suspect: metrics.jsonl: it is" in capfd.readouterr().err


@pytest.mark.parametrize("is_missing", [True, False])
def test_rows_that_are_run_again_after_a_lost_history_are_not_taken_for_the_lost_ones(
    run, script, is_missing
):
    assert not attempt(run.root, script, crash_at=6)
    run.metrics.unlink() if is_missing else run.metrics.write_bytes(run.metrics.read_bytes()[:100])
    assert not attempt(run.root, script, crash_at=3, steps=100)
    assert attempt(run.root, script, steps=100)
    found = read_resume(run.resume)
    assert (found.checkpoint, found.lost, found.compared, found.verdict) == (
        "step-000000003",
        2,
        2,
        "suspect",
    )
    rows = [row["step"] for row in read_history(run.metrics).rows]
    assert rows[-9:] == list(range(4, 13))
    assert len(rows) == len(set(rows))


def test_a_checkpoint_of_another_run_is_said(run, script, tmp_path, capfd):
    assert not attempt(run.root, script, crash_at=6)
    other = RunPaths(tmp_path / "other")
    assert attempt(other.root, script, keep_last=None)
    newest = max(other.checkpoints.glob("step-*"))
    shutil.copytree(newest, run.checkpoints / newest.name)
    script.epochs = 3
    assert attempt(run.root, script)
    (found,) = reasons(run, "another-run")
    assert found.detail == "it was made by the run 'other', and this one is 'run'"
    assert f"resume: {newest.name}: it was made by the run 'other'" in capfd.readouterr().err
    assert read_resume(run.resume).verdict == "suspect"


def test_a_checkpoint_of_a_run_of_the_same_name_is_told_by_its_lineage(run, script, tmp_path):
    assert not attempt(run.root, script, crash_at=6)
    other = RunPaths(tmp_path / "elsewhere" / "run")
    assert attempt(other.root, script, keep_last=None)
    newest = max(other.checkpoints.glob("step-*"))
    shutil.copytree(newest, run.checkpoints / newest.name)
    script.epochs = 3
    assert attempt(run.root, script)
    assert "it was probably copied from another run" in reasons(run, "another-run")[0].detail


def test_a_rollback_is_not_taken_for_another_run(run, script):
    assert attempt(run.root, script, keep_last=None)
    store = CheckpointStore.of_run(run)
    with store.lock():
        store.set_aside_after(store.find("3"), "a test goes back")
    assert not attempt(run.root, script, crash_at=6, keep_last=None)  # saved step 6 on a line of its own
    assert attempt(run.root, script, keep_last=None)
    assert read_resume(run.resume).checkpoint == "step-000000006"
    assert not reasons(run, "another-run")


def test_another_learning_rate_has_no_effect_and_that_is_said(run, script, capfd):
    assert not attempt(run.root, script, crash_at=6)
    script.lr, script.rates = 0.001, []
    assert attempt(run.root, script)
    assert set(script.rates) == {0.1}
    assert reasons(run, "option-kept") == [
        Reason(
            "option-kept",
            "optimizer.param_groups[0].lr",
            "the program says 0.001, and the saved 0.1 is used: a resume restores it",
            "to change it, after session.resume(): optimizer.param_groups[0]['lr'] = 0.001",
        )
    ]
    assert "resume: optimizer.param_groups[0].lr: the program says 0.001" in capfd.readouterr().err
    assert read_resume(run.resume).verdict == "exact"  # all steps that were lost were compared


def test_after_a_drain_another_learning_rate_is_suspect(run, script):
    drained_at(run.root, script, 3)
    script.lr = 0.001
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.verdict, found.is_witnessed) == ("suspect", True)
    assert summary(found).startswith("suspect: optimizer.param_groups[0].lr: the program says 0.001")


def test_a_rate_that_a_scheduler_or_the_script_moved_is_not_taken_for_another_option(run, script):
    script.scheduler = lambda optimizer: L.ExponentialLR(optimizer, 0.5)
    assert not attempt(run.root, script, crash_at=6)
    assert attempt(run.root, script)
    assert read_resume(run.resume).reasons == ()


PLANS = {
    "one": lambda total: lambda optimizer: L.OneCycleLR(optimizer, 0.1, total_steps=total),
    "cosine": lambda total: lambda optimizer: L.CosineAnnealingLR(optimizer, T_max=total),
    "linear": lambda total: lambda optimizer: L.LinearLR(optimizer, total_iters=total),
    "steps": lambda total: lambda optimizer: L.MultiStepLR(optimizer, [total // 2, total]),
    "sequence": lambda total: (
        lambda optimizer: L.SequentialLR(
            optimizer,
            [L.ConstantLR(optimizer, 0.5), L.CosineAnnealingLR(optimizer, T_max=total - 3)],
            milestones=[3],
        )
    ),
}
CHANGED = {
    "one": ("plan.total_steps", "12", "24"),
    "cosine": ("plan.T_max", "12", "24"),
    "linear": ("plan.total_iters", "12", "24"),
    "steps": ("plan.milestones", None, None),
    "sequence": ("plan._schedulers.1.T_max", "9", "21"),
}


@pytest.mark.parametrize("name", PLANS)
def test_another_plan_of_a_scheduler_has_no_effect_and_that_is_said(run, script, name):
    script.scheduler = PLANS[name](12)
    assert not attempt(run.root, script, crash_at=6)
    script.scheduler = PLANS[name](24)
    assert attempt(run.root, script)
    where, then, now = CHANGED[name]
    found = [each for each in reasons(run, "schedule-kept") if each.where.startswith(where)]
    assert found
    if then is not None:
        assert (
            found[0].detail == f"the program says {now}, and the saved {then} is used: a resume restores it"
        )
    assert "plan.load_state_dict({**plan, " in found[0].hint


@pytest.mark.parametrize(
    ("name", "what"),
    [("one", "OneCycleLR planned 12 steps"), ("cosine", "CosineAnnealingLR planned 12 steps")],
)
def test_a_scheduler_that_has_done_its_plan_is_said(run, script, name, what):
    script.scheduler = PLANS[name](12)
    assert attempt(run.root, script)
    script.epochs = 3
    if name == "one":
        with pytest.raises(ValueError, match="specified number of total steps is 12"):
            attempt(run.root, script)
    else:
        assert attempt(run.root, script)
    (found,) = reasons(run, "schedule-over")
    assert what in found.detail
    assert read_resume(run.resume).verdict == "suspect"


@pytest.mark.parametrize("name", ["one", "cosine"])
def test_a_finished_run_that_trains_nothing_is_suspected_of_nothing(run, script, name, capfd):
    script.scheduler = PLANS[name](12)
    assert attempt(run.root, script)
    script.scheduler, script.lr = PLANS[name](24), 0.2  # another program, which has no effect
    capfd.readouterr()
    assert attempt(run.root, script)
    record = read_resume(run.resume)
    assert record.verdict == "unchecked"
    assert [each.kind for each in record.reasons] == ["no-training"]
    said = capfd.readouterr().err
    assert "suspect" not in said
    assert "schedule-over" not in said
    assert "planned 12 steps" not in said


def test_a_scheduler_that_was_given_a_longer_plan_is_not_said_to_be_over(run, script):
    script.scheduler = PLANS["cosine"](12)
    assert attempt(run.root, script)
    script.scheduler, script.epochs = PLANS["cosine"](24), 4
    script.after = lambda scheduler: setattr(scheduler, "T_max", 24)
    assert attempt(run.root, script)
    assert reasons(run, "schedule-over") == []


def test_the_hint_for_a_longer_plan_gives_the_rates_of_that_plan(run, script, tmp_path):
    script.scheduler = PLANS["one"](12)
    assert attempt(run.root, script)
    script.scheduler, script.epochs, script.rates = PLANS["one"](24), 4, []
    plans = []
    script.before = lambda scheduler: plans.append(scheduler.state_dict())
    script.after = lambda scheduler: scheduler.load_state_dict(
        {**plans[0], "last_epoch": scheduler.last_epoch}
    )
    assert attempt(run.root, script)
    whole = Script()
    whole.scheduler, whole.epochs = PLANS["one"](24), 4
    assert attempt(tmp_path / "whole", whole)
    assert script.rates[1:] == pytest.approx(whole.rates[13:])  # the first step still has the former rate


def test_a_checkpoint_without_options_is_from_an_older_trainerd_and_says_nothing(run, script):
    assert not attempt(run.root, script, crash_at=6)
    store = CheckpointStore.of_run(run)
    assert "options" in store.checkpoints()[-1].manifest.fingerprint
    assert (
        json.loads((run.checkpoints / "step-000000003" / "manifest.json").read_bytes())["fingerprint"][
            "options"
        ]["optimizer"]["groups"]["0"]["lr"]
        == "0.1"
    )
