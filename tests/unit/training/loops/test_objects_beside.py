"""Plain objects that training changes, and odd attributes of tracked modules, are reasons not to be exact."""

from collections import Counter, deque

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from tests.support.banks import Bank, BankMeter, Last, Told, WandbRun  # noqa: E402
from tests.support.loop_shapes import Points  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.torch


class StatefulBank(Bank):
    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        vars(self).update(state)


class Statistics:
    def __init__(self):
        self.count = 0


class Odd(torch.nn.Linear):
    """A layer that keeps what `kind` makes, and uses it."""

    def __init__(self, kind):
        super().__init__(3, 3)
        self.kept = kind()

    def forward(self, x):
        if isinstance(self.kept, deque):
            self.kept.append(x.detach().mean())
        elif isinstance(self.kept, set):
            self.kept.add(len(self.kept))
        elif isinstance(self.kept, dict):
            self.kept["calls"] += 1
        else:
            self.kept.count += 1
        return super().forward(x)


class Saving(Odd):
    def get_extra_state(self):
        return list(self.kept)

    def set_extra_state(self, state):
        self.kept = deque(state, self.kept.maxlen)


def schedule():
    """Return a function that counts its calls."""
    calls, scale = 0, 2.0

    def rate():
        nonlocal calls
        calls += 1
        return scale / calls

    return rate


def reasons(folder, criterion, model=None, **tracked):
    with trainerd.session(folder, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(3, 3) if model is None else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer, **tracked)
        for _ in session.epochs(2):
            for x in session.batches(torch.utils.data.DataLoader(Points(), 2)):
                optimizer.zero_grad()
                criterion(model(x)).backward()
                optimizer.step()
        kinds = {"untracked-object", "untracked-variable", "module-attribute"}
        return [each for each in session._run.suspicions.reasons if each.kind in kinds]


def test_one_of_an_imported_class_is_said_with_what_changed(tmp_path):
    bank = Bank()
    (reason,) = reasons(tmp_path, bank)
    assert reason.kind == "untracked-object"
    assert reason.detail.startswith("training changes criterion.mean, and criterion is not tracked")
    assert "session.track(criterion=criterion)" in reason.hint


@pytest.mark.parametrize("kind", [Last, Told, BankMeter, WandbRun])
def test_one_that_only_shows_something_is_fine(tmp_path, kind):
    assert not reasons(tmp_path, kind())


def test_one_that_is_tracked_is_fine(tmp_path):
    bank = StatefulBank()
    assert not reasons(tmp_path, bank, bank=bank)


@pytest.mark.parametrize("kind", [lambda: deque(maxlen=2), set, Counter, Statistics])
def test_what_no_checkpoint_of_a_tracked_module_holds_is_said(tmp_path, kind):
    model = torch.nn.Sequential(torch.nn.Sequential(Odd(kind)))
    (reason,) = reasons(tmp_path, torch.mean, model)
    assert reason.kind == "module-attribute"
    assert f"model.0.0.kept, and a checkpoint of a module holds no {type(kind()).__name__}" in reason.detail


def test_what_the_extra_state_of_a_module_holds_is_fine(tmp_path):
    assert not reasons(tmp_path, torch.mean, torch.nn.Sequential(Saving(lambda: deque(maxlen=2))))


def test_a_variable_that_a_closure_counts_in_is_said(tmp_path):
    rate = schedule()
    (reason,) = reasons(tmp_path, lambda x: x.mean() * rate())
    assert reason.kind == "untracked-variable"
    assert "training changes calls, a variable of the function rate" in reason.detail


def test_what_closures_only_read_is_fine(tmp_path):
    epoch = 0

    def loss(x):
        return x.mean() * (epoch + 1)

    with trainerd.session(tmp_path, seed=0, every={"seconds": None}) as session:
        for epoch in session.epochs(2):
            for x in session.batches(torch.utils.data.DataLoader(Points(), 2)):
                loss(x)
    assert not session._run.suspicions.reasons


_of_a_hook = Bank()


def move(_module, _inputs, out):
    return out + 0 * _of_a_hook(out)


class Noted(Points):
    """Points moved by an object that counts, which is saved with the loop."""

    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    def __getitem__(self, index):
        return super().__getitem__(index) + 0 * self.bank(torch.ones(1, 3))


@pytest.mark.parametrize("is_hook", [True, False])
def test_what_is_saved_with_hooks_and_datasets_is_fine(tmp_path, is_hook):
    bank = _of_a_hook if is_hook else Bank()
    with trainerd.session(tmp_path, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(3, 3)
        session.track(model=model)
        if is_hook:
            model.register_forward_hook(move)
        loader = torch.utils.data.DataLoader(Points() if is_hook else Noted(bank), 2)
        for _ in session.epochs(2):
            for x in session.batches(loader):
                model(x)
        kinds = [each.kind for each in session._run.suspicions.reasons]
    assert bank.steps
    assert "untracked-object" not in kinds
