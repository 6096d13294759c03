"""Steps that are run again are compared with what they were: a difference is said, counted and recorded."""

import shutil

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.support.in_process import attempt
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume, summary
from trainerd.contract.verdict import Reason
from trainerd.errors import MismatchError, SpaceError
from trainerd.training.engine import resume_proof
from trainerd.training.engine.row_comparison import likely_cause

pytestmark = pytest.mark.torch


class Script:
    """A loop whose loss depends on something that is not tracked, as often as it is asked to."""

    def __init__(self):
        self.untracked = 0.0
        self.samples = 24
        self.features = 3
        self.is_shuffled = True
        self.batch_size = 4
        self.more = {}

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
                session.log(loss=loss.item() + self.untracked, **self.more)
                tick()


@pytest.fixture
def script():
    return Script()


def crash_and_finish(run, script, change, **settings):
    """Crash after five steps, with a checkpoint at the third; change something; run to the end."""
    assert not attempt(run.root, script, crash_at=6)
    change(script)
    assert attempt(run.root, script, **settings)
    return read_resume(run.resume)


def test_an_exact_resume_is_on_record_as_one(run, script):
    found = crash_and_finish(run, script, lambda script: None)
    assert (found.checkpoint, found.lost, found.compared, found.differing) == ("step-000000003", 2, 2, 0)
    assert found.verdict == "exact"
    assert summary(found) == "exact: 2 steps run again, equal in samples and values"


def test_a_loss_that_differs_is_said_counted_and_recorded_with_a_likely_cause(run, script, capfd):
    found = crash_and_finish(run, script, lambda script: setattr(script, "untracked", 0.5))
    assert (found.compared, found.differing) == (2, 2)
    assert found.first_difference.startswith("step 4: loss 0.")
    assert "nondeterministic kernels" in found.likely_cause
    assert found.verdict == "different"
    assert summary(found).startswith("different: 2 of 2 steps run again; step 4: loss ")
    said = capfd.readouterr().err
    assert said.count("resume is not exact: step 4: loss") == 1
    assert "trainerd: resume: different: 2 of 2 steps" in said


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
    assert "samples: 24 → 28: the order of the data changes from here on" in capfd.readouterr().err


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
    assert "resume: precision.float32_matmul: highest → high" in capfd.readouterr().err


def test_the_manifest_has_the_fingerprint(run, script):
    assert attempt(run.root, script)
    found = CheckpointStore.of_run(run).checkpoints()[-1].manifest.fingerprint
    assert {
        "code",
        "config",
        "world_size",
        "precision",
        "libraries",
        "machine",
        "parameters",
        "data",
        "options",
    } == set(found)
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
    rows, others = (read_history(path).rows for path in (run.metrics, RunPaths(tmp_path / "other").metrics))
    assert rows == others


@pytest.mark.parametrize("name", ["reward", "lr", "images_per_s"])
def test_a_number_of_any_name_is_compared(run, script, name):
    script.more = {name: 1}
    found = crash_and_finish(run, script, lambda script: script.more.update({name: 2}))
    assert found.verdict == "different"
    assert found.first_difference == f"step 4: {name} 1 became 2; 1 other is equal"
    assert f"uncompared=('{name}',)" in found.reasons[0].hint


def test_names_that_the_script_declares_uncompared_are_left_out(run, script):
    script.more = {"time/step": 1, "time/load": 2}
    assert not attempt(run.root, script, crash_at=6)
    script.more = {"time/step": 3}
    assert attempt(run.root, script, uncompared=("time/*",))
    found = read_resume(run.resume)
    assert (found.verdict, found.compared) == ("exact", 2)


def test_a_name_that_is_not_logged_any_more_is_a_difference(run, script):
    script.more = {"norm": 1.0}
    found = crash_and_finish(run, script, lambda script: script.more.clear())
    assert found.first_difference == "step 4: norm was logged in the first run and is not now"


def test_two_attempts_that_make_the_same_mistake_do_not_look_exact(run, script):
    """The second resumes from the same checkpoint and equals the first one that differed."""
    assert not attempt(run.root, script, crash_at=6)
    script.untracked = 1.0
    assert not attempt(run.root, script, crash_at=3)
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.verdict, found.differing) == ("different", 2)


def test_rows_without_a_value_prove_nothing(run):
    def script(session, tick):
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(2):
            for _ in session.batches(DataLoader(TensorDataset(torch.zeros(24, 1)), 4)):
                if session.attempt == 1:
                    session.log(loss=1.0)
                else:
                    session.log(other=1.0)
                tick()

    assert not attempt(run.root, script, crash_at=6)
    assert attempt(run.root, script, uncompared=("loss", "other"))
    found = read_resume(run.resume)
    assert (found.verdict, found.run_again, found.compared) == ("unchecked", 2, 0)
    assert [each.kind for each in found.reasons] == ["no-values", "no-values"]


def test_rows_without_samples_prove_nothing(run):
    class Batches:
        def __iter__(self):
            return iter(torch.ones(6, 1))

    def script(session, tick):
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(2):
            for _ in session.batches(DataLoader(TensorDataset(torch.zeros(4, 1)), 4)):
                session.log(loss=1.0)
            for _ in session.batches(Batches()):
                session.log(loss=1.0)
                tick()

    assert not attempt(run.root, script, crash_at=6)
    with pytest.warns(UserWarning, match="loaded and thrown away"):
        assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.verdict, found.run_again, found.compared) == ("unchecked", 3, 0)
    assert summary(found).startswith("unchecked: 3 steps run again, none compared in both samples and values")


def test_a_step_of_the_first_run_that_is_not_logged_again_is_a_difference(run):
    def script(session, tick):
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(2):
            for number, _ in enumerate(session.batches(DataLoader(TensorDataset(torch.zeros(24, 1)), 4))):
                if number % 2 == 0:  # begins at 0 after a resume in the middle, as enumerate does
                    session.log(loss=1.0)
                tick()

    assert not attempt(run.root, script, crash_at=6)
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert found.verdict == "different"
    assert found.first_difference.startswith("step 5: the first run logged it in epoch 0 after batch 4")


def test_numbers_logged_under_the_names_of_the_session_find_their_first_run(run, script):
    script.more = {"epoch": 7}
    found = crash_and_finish(run, script, lambda script: None)
    assert (found.verdict, found.compared) == ("exact", 2)


def test_rows_that_an_earlier_resume_superseded_are_compared_too(run, script):
    assert not attempt(run.root, script, crash_at=11)  # at step 9, and 10 is done
    for checkpoint in CheckpointStore.of_run(run).checkpoints():
        if checkpoint.step > 3:
            shutil.rmtree(checkpoint.path)
    assert not attempt(run.root, script, crash_at=4)  # saved step 6, which belongs to the history now
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.checkpoint, found.verdict, found.lost, found.compared) == ("step-000000006", "exact", 4, 4)


def test_after_a_resume_that_differed_only_the_history_that_counts_is_compared(run, script):
    assert not attempt(run.root, script, crash_at=11)
    for checkpoint in CheckpointStore.of_run(run).checkpoints():
        if checkpoint.step > 3:
            shutil.rmtree(checkpoint.path)
    script.untracked = 1.0
    assert not attempt(run.root, script, crash_at=5)
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.checkpoint, found.verdict, found.lost) == ("step-000000006", "exact", 1)
    assert found.differing_before == 4


@pytest.mark.parametrize("is_deterministic", [True, False])
def test_likely_causes_are_named_in_the_order_of_their_likelihood(is_deterministic):
    known = Reason("untracked-optimizer", "train.py:3", "an optimizer is not tracked")
    cause = likely_cause(["libraries.torch: 1 → 2"], [known], is_other_data=True, is_deterministic=False)
    assert cause.index("not tracked") < cause.index("libraries.torch") < cause.index("dataset or sampler")
    read = Reason("carried-variable", "train.py:1", "a variable is carried")
    assert likely_cause([], [read, known], is_other_data=False, is_deterministic=True).startswith(
        "train.py:3"
    )
    alone = likely_cause([], is_other_data=False, is_deterministic=is_deterministic)
    assert alone.startswith("state that is not tracked")
    assert alone.endswith("kernels (torch.use_deterministic_algorithms is not on)") is not is_deterministic


@pytest.mark.parametrize("is_before", [True, False])
def test_a_known_cause_of_inexactness_makes_an_equal_resume_suspect(run, script, is_before, capfd):
    cause = Reason("untracked-optimizer", "train.py:3", "an optimizer is not tracked", "track it")

    def loop(session, tick):
        if is_before:
            session._run.suspicions.add(cause)

        def audited():
            session._run.suspicions.add(cause)
            tick()

        script(session, audited)

    assert not attempt(run.root, loop, crash_at=6)
    assert attempt(run.root, loop)
    found = read_resume(run.resume)
    assert (found.verdict, found.compared, found.differing) == ("suspect", 2, 0)
    assert found.reasons == (cause,)
    assert (
        "resume: suspect: train.py:3: an optimizer is not tracked (track it); 2 of 2"
        in capfd.readouterr().err
    )


def test_a_cause_that_is_found_after_all_was_compared_changes_the_verdict(run, script, capfd):
    cause = Reason("untracked-optimizer", "train.py:3", "an optimizer is not tracked")
    assert not attempt(run.root, script, crash_at=6)
    calls = []

    def loop(session, tick):
        def late():
            calls.append(1)
            if len(calls) == 5:
                assert read_resume(run.resume).verdict == "exact"
                session._run.suspicions.add(cause)
                assert read_resume(run.resume).verdict == "suspect"
            tick()

        script(session, late)

    assert attempt(run.root, loop)
    said = capfd.readouterr().err
    assert said.index("resume: exact: 2 steps") < said.index("resume: suspect: train.py:3")


class Scores(Script):
    """Reports two scores after each epoch, of which one may depend on something that is not tracked."""

    def __call__(self, session, tick):
        model = nn.Linear(3, 1)
        session.track(model=model)
        loader = DataLoader(TensorDataset(torch.ones(8, 3)), 4)
        for _ in session.epochs(2):
            for _ in session.batches(loader):
                session.log(loss=1.0)
            session.report(first=1.0)
            session.report(accuracy=0.5 + self.untracked, seconds=self.untracked)
            tick()


@pytest.mark.parametrize(
    ("untracked", "settings", "verdict"),
    [(0.0, {}, "exact"), (0.25, {"uncompared": ("seconds",)}, "different"), (0.25, {}, "different")],
    ids=["equal", "left out", "different"],
)
def test_reported_scores_are_compared_too(run, untracked, settings, verdict):
    script = Scores()
    assert not attempt(run.root, script, crash_at=1, steps=1)
    script.untracked = untracked
    assert attempt(run.root, script, steps=1, **settings)
    found = read_resume(run.resume)
    assert found.verdict == verdict
    if verdict == "different":
        assert "the reported accuracy 0.5 became 0.75" in found.first_difference


def test_a_score_that_is_left_out_is_not_compared(run):
    script = Scores()
    assert not attempt(run.root, script, crash_at=1, steps=1)
    script.untracked = 0.25
    assert attempt(run.root, script, steps=1, uncompared=("seconds", "accuracy"))
    assert read_resume(run.resume).verdict == "exact"
