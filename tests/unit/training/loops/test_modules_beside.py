"""A module that training changes and that is not tracked is a reason not to be exact."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import prune  # noqa: E402 - only where torch is

import trainerd  # noqa: E402 - only where torch is
from tests.support.loop_shapes import Points  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.torch


class Centred(torch.nn.Module):
    """A loss with a running centre, as DINO's."""

    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(3))

    def forward(self, x):
        self.center = 0.9 * self.center + 0.1 * x.detach().mean(0)
        return (x - self.center).square().mean()


class Targets(torch.nn.Module):
    """A loss with a table of targets that is no buffer, as in early-learning regularisation."""

    def __init__(self):
        super().__init__()
        self.table = torch.zeros(8, 3)

    def forward(self, x):
        self.table[: len(x)] = 0.7 * self.table[: len(x)] + 0.3 * x.detach()
        return (x - self.table[: len(x)]).square().mean()


class Annealed(torch.nn.Module):
    """A loss that counts its steps."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.square().mean() / self.calls


class Teacher(torch.nn.Sequential):
    """A frozen teacher that was left in training mode: its batch statistics move."""

    def __init__(self):
        super().__init__(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
        self.requires_grad_(False)

    def forward(self, x):
        return (x - super().forward(x)).square().mean()


class Still(torch.nn.Module):
    """A loss that keeps only what no later step reads: a mask made at the first call, and its last output."""

    def __init__(self):
        super().__init__()
        self.mask = self.last = None

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.ones(x.shape)
        self.last = (x * self.mask).square()
        return self.last.mean()


def reasons(folder, criterion, *, tracked=None, epochs=2):
    """Train for `epochs` and return the reasons that name a module."""
    with trainerd.session(folder, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(3, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer, **(tracked or {}))
        for _ in session.epochs(epochs):
            for x in session.batches(torch.utils.data.DataLoader(Points(), 2)):
                optimizer.zero_grad()
                criterion(model(x)).backward()
                optimizer.step()
        return [each for each in session._run.suspicions.reasons if each.kind == "untracked-module"]


@pytest.mark.parametrize(
    ("kind", "changed"),
    [(Centred, "center"), (Targets, "table"), (Annealed, "calls"), (Teacher, "1.running_mean")],
)
def test_one_that_a_step_changes_is_said_with_what_changed(tmp_path, kind, changed):
    criterion = kind()
    (reason,) = reasons(tmp_path, criterion)
    assert reason.detail.startswith(f"training changes criterion.{changed}, ")
    assert reason.hint == "session.track(criterion=criterion)"
    assert "tests/unit/training/loops/test_modules_beside.py:" in reason.where


@pytest.mark.parametrize("kind", [Centred, Targets, Annealed, Teacher])
def test_one_that_is_tracked_is_fine(tmp_path, kind):
    criterion = kind()
    assert not reasons(tmp_path, criterion, tracked={"criterion": criterion})


def test_one_that_keeps_nothing_for_later_steps_is_fine(tmp_path):
    criterion = Still()
    assert not reasons(tmp_path, criterion)
    assert criterion.mask is not None


def test_one_that_is_changed_in_a_later_step_is_said(tmp_path):
    target = torch.nn.Linear(3, 3)  # a target network, exchanged every few steps
    with trainerd.session(tmp_path, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(3, 3)
        session.track(model=model)
        for step in session.steps(9):
            if step == 7:
                target.load_state_dict(model.state_dict())
        (reason,) = (each for each in session._run.suspicions.reasons if each.kind == "untracked-module")
    assert "target.weight" in reason.detail


@pytest.mark.parametrize("form", ["grown", "pruned"])
def test_parameters_that_training_adds_are_said_at_the_next_save(tmp_path, form):
    """Such a checkpoint cannot be resumed: said while training goes on, not only when it is too late."""
    with trainerd.session(tmp_path, seed=0, every={"seconds": None, "steps": 1}) as session:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3))
        session.track(model=model)
        for step in session.steps(4):
            assert not session._run.suspicions.reasons
            if step == 2:
                session.checkpoint_now()
            if step == 3 and form == "grown":
                model.append(torch.nn.Linear(3, 3))
            elif step == 3:
                prune.l1_unstructured(model[0], "weight", amount=0.5)
    (reason,) = session._run.suspicions.reasons
    assert (reason.kind, reason.where) == ("other-parameters", "model")
    assert ("1.weight" if form == "grown" else "0.weight") in reason.detail


@pytest.mark.parametrize("form", ["grown", "pruned"])
def test_parameters_that_the_steps_have_named_are_not_named_again_at_the_save(tmp_path, form):
    with trainerd.session(tmp_path, seed=0, every={"seconds": None, "steps": 1}) as session:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        for step in session.steps(6):
            if step == 3 and form == "grown":
                model.append(torch.nn.Linear(3, 3))
                optimizer.add_param_group({"params": model[1].parameters()})
            elif step == 3:
                prune.l1_unstructured(model[0], "weight", amount=0.5)
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
    assert [each.kind for each in session._run.suspicions.reasons] == ["structure-changed"]


class Accuracy(torch.nn.Module):
    """A metric, as torchmetrics has them."""

    def __init__(self):
        super().__init__()
        self.right = torch.tensor(0)

    def reset(self):
        self.right = torch.tensor(0)

    def update(self, out):
        self.right = self.right + (out > 0).sum()

    def compute(self):
        return self.right


@pytest.mark.parametrize("form", ["validation", "training"])
def test_a_metric_counts_where_its_sum_goes_on_over_steps(tmp_path, form):
    """One that begins again between the loops leaves nothing to the next one."""
    with trainerd.session(tmp_path, seed=0, every={"seconds": None}) as session:
        model, metric = torch.nn.Linear(3, 3), Accuracy()
        session.track(model=model)
        for _ in session.epochs(3):
            for x in session.batches(torch.utils.data.DataLoader(Points(), 2)):
                if form == "training":
                    metric.update(model(x))
            metric.reset()
            metric.update(model(torch.ones(1, 3)))
        found = [each.detail for each in session._run.suspicions.reasons if each.kind == "untracked-module"]
    assert [each.partition(",")[0] for each in found] == (
        [] if form == "validation" else ["training changes metric.right"]
    )
