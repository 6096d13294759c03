"""Steps that are run again are compared with what they were: a difference is said, counted and recorded."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.support.in_process import attempt
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import ResumeRecord, read_resume, verdict, write_resume
from trainerd.errors import CorruptError, MismatchError, SpaceError
from trainerd.training.engine import resume_proof
from trainerd.training.engine.resume_proof import difference, likely_cause

pytestmark = pytest.mark.torch


class Script:
    """A loop whose loss depends on something that is not tracked, as often as it is asked to."""

    def __init__(self):
        self.untracked = 0.0
        self.samples = 24
        self.features = 3
        self.is_shuffled = True
        self.batch_size = 4

    def __call__(self, session, tick):
        model = nn.Linear(self.features, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        session.track(model=model, optimizer=optimizer)
        data = TensorDataset(torch.arange(float(self.samples)).unsqueeze(1).expand(-1, self.features) / 24)
        loader = DataLoader(data, self.batch_size, shuffle=self.is_shuffled)
        for _ in session.epochs(2):
            for (points,) in session.batches(loader):
                loss = model(points).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss.item() + self.untracked, samples_a_second=session.attempt)
                tick()


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def run(tmp_path):
    return RunPaths(tmp_path / "run")


def crash_and_finish(run, script, change, **settings):
    """Crash after five steps, with a checkpoint at the third; change something; run to the end."""
    assert not attempt(run.root, script, crash_at=6)
    change(script)
    assert attempt(run.root, script, **settings)
    return read_resume(run.resume)


def test_an_exact_resume_is_on_record_as_one(run, script):
    found = crash_and_finish(run, script, lambda script: None)
    assert (found.checkpoint, found.lost, found.compared, found.differing) == ("step-000000003", 2, 2, 0)
    assert verdict(found) == "exact: 2 steps run again, equal in samples and loss"


def test_a_loss_that_differs_is_said_counted_and_recorded_with_a_likely_cause(run, script, capfd):
    found = crash_and_finish(run, script, lambda script: setattr(script, "untracked", 0.5))
    assert (found.compared, found.differing) == (2, 2)
    assert found.first_difference.startswith("step 4: loss 0.")
    assert "nondeterministic kernels" in found.likely_cause
    assert verdict(found).startswith("differs: 2 of 2 steps run again; step 4: loss ")
    said = capfd.readouterr().err
    assert said.count("is not what it was: loss") == 1
    assert "trainerd: resume: differs: 2 of 2 steps" in said


def test_with_deterministic_kernels_the_cause_is_sought_elsewhere(run, script):
    torch.use_deterministic_algorithms(True)
    try:
        found = crash_and_finish(run, script, lambda script: setattr(script, "untracked", 0.5))
    finally:
        torch.use_deterministic_algorithms(False)
    assert found.likely_cause == likely_cause((), is_other_data=False, is_deterministic=True)
    assert "kernels" not in found.likely_cause


def test_a_record_that_cannot_be_written_stops_no_run(run, script, monkeypatch, capfd):
    def full(path, record):
        raise SpaceError("the disk is full")

    assert not attempt(run.root, script, crash_at=6)
    monkeypatch.setattr(resume_proof, "write_resume", full)
    assert attempt(run.root, script)
    assert "resume: exact: 2 steps" in capfd.readouterr().err


def test_other_samples_are_told_by_their_digest(run, script):
    found = crash_and_finish(run, script, lambda script: setattr(script, "is_shuffled", False))
    assert found.first_difference == "step 4: it used other samples"
    assert "sampler" in found.likely_cause


def test_differences_of_former_resumes_are_counted_on(run, script):
    assert not attempt(run.root, script, crash_at=6)
    script.untracked = 1.0
    assert not attempt(run.root, script, crash_at=3)
    script.untracked = 0.0
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.resumes, found.differing_before) == (2, 2)


def test_data_of_another_length_is_refused_in_the_middle_of_an_epoch(run, script):
    with pytest.raises(MismatchError, match=r"data\.samples: 24 → 28"):
        crash_and_finish(run, script, lambda script: setattr(script, "samples", 28))


def test_another_batch_size_is_refused_in_the_middle_of_an_epoch(run, script):
    with pytest.raises(MismatchError, match="batch_size: 4 → 8"):
        crash_and_finish(run, script, lambda script: setattr(script, "batch_size", 8))


def test_between_epochs_data_of_another_length_is_compatible_and_said(run, script, capfd):
    assert not attempt(
        run.root, script, crash_at=7, steps=100
    )  # the checkpoint is that of the end of epoch 0
    script.samples = 28
    assert attempt(run.root, script)
    assert "samples: 24 → 28: the order of the data is another one from here on" in capfd.readouterr().err


def test_parameters_of_another_shape_are_refused_before_anything_changes(run, script):
    with pytest.raises(MismatchError, match=r"model\.weight"):
        crash_and_finish(run, script, lambda script: setattr(script, "features", 4))


def test_what_changed_is_said_by_field_when_it_resumes(run, script, capfd):
    assert not attempt(run.root, script, crash_at=6)
    capfd.readouterr()
    torch.set_float32_matmul_precision("high")
    try:
        assert attempt(run.root, script)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert "not the same: precision.float32_matmul: highest → high" in capfd.readouterr().err


def test_the_manifest_has_the_fingerprint(run, script):
    assert attempt(run.root, script)
    found = CheckpointStore.of_run(run).checkpoints()[-1].manifest.fingerprint
    assert {"code", "config", "world_size", "precision", "libraries", "machine", "parameters", "data"} == set(
        found
    )
    assert found["data"] == {"0": {"samples": 24, "batch_size": 4}}
    assert found["libraries"]["torch"] == torch.__version__
    assert found["parameters"]["model"]["count"] == 2


def test_an_attempt_that_begins_anew_compares_all_of_the_former_ones_steps(run, script):
    assert not attempt(run.root, script, crash_at=3, steps=100)
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.checkpoint, found.lost, found.compared, found.differing) == (None, 2, 2, 0)


def test_the_history_of_a_run_is_not_changed_by_being_compared(run, script, tmp_path):
    crash_and_finish(run, script, lambda script: None)
    assert attempt(tmp_path / "other", Script())
    rows, others = (
        [
            {key: value for key, value in row.items() if key != "samples_a_second"}
            for row in read_history(path).rows
        ]
        for path in (run.metrics, RunPaths(tmp_path / "other").metrics)
    )
    assert rows == others


@pytest.mark.parametrize(
    ("row", "digest", "measured", "expected"),
    [
        ({"loss": 0.5}, None, {"loss": 0.5}, None),
        ({"loss": 0.5}, None, {"loss": 0.25}, "loss 0.5 became 0.25"),
        ({"loss": float("nan")}, None, {"loss": float("nan")}, None),
        ({"val_Loss": 1}, None, {"val_Loss": 2}, "val_Loss 1 became 2"),
        ({"lr": 0.5}, None, {"lr": 0.25}, None),
        ({}, None, {"loss": 1.0}, None),
        ({"digest": "aa"}, "ab", {}, "it used other samples"),
        ({"digest": 3.0}, "ab", {}, None),
        ({"digest": "aa"}, None, {}, None),
    ],
    ids=str,
)
def test_samples_and_losses_are_compared_and_nothing_else(row, digest, measured, expected):
    assert difference(row, digest, measured) == expected


BASE = ResumeRecord(attempt=2, checkpoint="step-000000003", step=3, is_over=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "exact: no step had to be run again"),
        ({"differing_before": 2}, "exact: no step had to be run again; 2 differed in resumes before"),
        ({"lost": 1, "compared": 1}, "exact: 1 step run again, equal in samples and loss"),
        ({"lost": 9, "compared": 4, "is_over": False}, "exact, so far 4 of 9 steps run again"),
        ({"lost": 9, "compared": 4}, "exact, only 4 of 9 steps run again"),
        (
            {"lost": 9, "compared": 4, "differing": 1, "first_difference": "step 7: x", "likely_cause": "y"},
            "differs: 1 of 4 steps run again; step 7: x; likely y",
        ),
    ],
)
def test_the_verdict_is_one_line(fields, expected):
    assert verdict(dataclasses.replace(BASE, **fields)) == expected


def test_a_record_comes_back_as_it_was_and_a_damaged_one_is_called_that(tmp_path):
    path = tmp_path / "resume.json"
    assert read_resume(path) is None
    record = dataclasses.replace(BASE, changes=("libraries.torch: 1 → 2",))
    write_resume(path, record)
    assert read_resume(path) == record
    path.write_text("{")
    with pytest.raises(CorruptError):
        read_resume(path)
