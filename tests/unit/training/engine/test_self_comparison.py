"""A run that passes newer checkpoints again compares its whole state with them; a restore is read back."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.support.in_process import attempt
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume, summary
from trainerd.training.engine import self_comparison
from trainerd.training.state.rank_files import read_verified

pytestmark = pytest.mark.torch


class Clock:
    """An object whose state is another one in every attempt."""

    ticks = 0

    def state_dict(self):
        Clock.ticks += 1
        return {"elapsed_s": Clock.ticks}

    def load_state_dict(self, state):
        pass


class Script:
    """A loop that logs nothing: only its state can tell."""

    def __init__(self):
        self.untracked = 0.0
        self.tracked = {}
        self.step_of_count = 1
        self.draws = False
        self.is_reversed = False

    def __call__(self, session, tick):
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        parameters = list(model.parameters())
        optimizer = torch.optim.Adam(parameters[::-1] if self.is_reversed else parameters)
        session.track(model=model, optimizer=optimizer, **self.tracked)
        count = session.value("count", 0)
        loader = DataLoader(TensorDataset(torch.arange(72.0).reshape(24, 3)), 4, shuffle=True)
        for _ in session.epochs(2):
            for (points,) in session.batches(loader):
                loss = model(points).pow(2).mean() + self.untracked * model[0].bias.sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                count.value += 1
                tick()


@pytest.fixture
def script():
    return Script()


def roll_back_to(run, step):
    store = CheckpointStore.of_run(run)
    with store.lock():
        return store.set_aside_after(store.find(str(step)), "a test goes back")


def test_a_run_that_passes_the_checkpoints_it_left_behind_is_exact_by_its_whole_state(run, script, capfd):
    assert attempt(run.root, script, keep_last=None)
    left = roll_back_to(run, 3)
    assert left[0] == "step-000000006"
    assert attempt(run.root, script, keep_last=None)
    found = read_resume(run.resume)
    assert (found.verdict, found.compared) == ("exact", 0)
    assert found.states == len(left) > 1
    assert f"the whole state equals that of {len(left)} checkpoints of an earlier run" in summary(found)
    assert "the whole state equals that of step-000000006" in capfd.readouterr().err


def test_checkpoints_of_an_older_version_are_compared_in_what_they_hold(run, script, monkeypatch):
    def read_older(checkpoint, rank):
        tree = read_verified(checkpoint, rank)
        own = tree.extra["session"]
        own["sources_form"] = 2
        for name in ("source_owners", "rng_earlier"):
            own.pop(name, None)
        return tree

    assert attempt(run.root, script, keep_last=None)
    left = roll_back_to(run, 3)
    monkeypatch.setattr(self_comparison, "read_verified", read_older)
    assert attempt(run.root, script, keep_last=None)
    found = read_resume(run.resume)
    assert (found.verdict, found.states) == ("exact", len(left))


def test_another_state_is_named_by_object_tensor_and_index(run, script, capfd):
    assert attempt(run.root, script, keep_last=None)
    roll_back_to(run, 3)
    script.untracked = 1.0
    assert attempt(run.root, script, keep_last=None)
    found = read_resume(run.resume)
    assert (found.verdict, found.states) == ("different", 0)
    assert found.first_difference.startswith("step 6, model.0.")
    assert "at the boundary of step-000000006, which an earlier run made: [0" in found.first_difference
    assert "values differ)" in found.first_difference
    assert "state that is not tracked" in found.likely_cause
    assert "resume is not exact: step 6, model" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "where"), [("step_of_count", 2, "values.count"), ("draws", True, "rng.torch")]
)
def test_values_and_generators_are_compared_too(tmp_path, name, value, where):
    """Without dropout and shuffling nothing else can tell."""
    run = RunPaths(tmp_path / "run")
    script = Script()

    def loop(session, tick):
        count = session.value("count", 0)
        model = nn.Linear(3, 1)
        session.track(model=model)
        for _ in session.epochs(2):
            for _ in session.batches(DataLoader(TensorDataset(torch.zeros(24, 3)), 4)):
                count.value += script.step_of_count
                if script.draws:
                    torch.rand(1)
                tick()

    assert attempt(run.root, loop, keep_last=None)
    roll_back_to(run, 3)
    setattr(script, name, value)
    assert attempt(run.root, loop, keep_last=None)
    found = read_resume(run.resume)
    assert found.verdict == "different"
    assert found.first_difference.startswith(f"step 6, {where}: at the boundary of step-000000006")


def test_the_same_boundary_left_behind_twice_is_compared_twice(run, script):
    assert attempt(run.root, script, keep_last=None)
    left = roll_back_to(run, 3)
    assert attempt(run.root, script, keep_last=None)
    left += roll_back_to(run, 3)
    assert attempt(run.root, script, keep_last=None)
    assert read_resume(run.resume).states == len(left) > len(set(left))


def test_a_value_that_differs_by_its_nature_can_be_left_out(run, script):
    script.tracked = {"clock": Clock()}
    patterns = {"uncompared": ("clock.elapsed_s",)}
    assert attempt(run.root, script, keep_last=None, **patterns)
    roll_back_to(run, 3)
    assert attempt(run.root, script, keep_last=None, **patterns)
    assert read_resume(run.resume).verdict == "exact"


def test_a_damaged_checkpoint_says_nothing_about_the_run(run, script):
    assert attempt(run.root, script, keep_last=None)
    roll_back_to(run, 3)
    for path in run.abandoned.glob("step-*/*.safetensors"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert attempt(run.root, script, keep_last=None)
    found = read_resume(run.resume)
    assert (found.verdict, found.states) == ("unchecked", 0)


@pytest.mark.parametrize("is_partial", [False, True])
def test_an_object_that_does_not_take_its_state_is_found_when_it_is_read_back(run, script, capfd, is_partial):
    class Forgetful:
        def __init__(self):
            self.values = {"kept": torch.zeros(2), "lost": torch.zeros(2)}

        def state_dict(self):
            return dict(self.values)

        def load_state_dict(self, state):
            if is_partial:
                self.values["kept"] = state["kept"]

    def loop(session, tick):
        forgetful = Forgetful()
        session.track(forgetful=forgetful)
        for _ in session.epochs(2):
            for _ in session.batches(DataLoader(TensorDataset(torch.zeros(24, 1)), 4)):
                forgetful.values["lost"] = forgetful.values["lost"] + 1
                tick()

    assert not attempt(run.root, loop, crash_at=6)
    assert attempt(run.root, loop)
    found = read_resume(run.resume)
    assert (found.verdict, found.is_read_back) == ("different", False)
    assert found.first_difference.startswith(
        "forgetful.lost: it was not restored as it is in step-000000003:"
    )
    assert found.first_difference.endswith("[0]: 3.0 became 0.0 (2 of 2 values differ)")
    assert "resume is not exact: forgetful.lost" in capfd.readouterr().err


def test_parameters_in_another_order_are_read_back_by_their_names(run, script, capfd):
    assert not attempt(run.root, script, crash_at=6)
    script.is_reversed = True
    assert attempt(run.root, script)
    found = read_resume(run.resume)
    assert (found.is_read_back, found.differing, found.first_difference) == (True, 0, None)
    assert "not exact" not in capfd.readouterr().err
