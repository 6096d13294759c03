"""Variables of the program's other files that training changes are named, unless they are saved or shown."""

from __future__ import annotations

import importlib
import linecache
import sys

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.torch

MODULE = """\
import itertools
import time
import numpy as np
import torch

count = 0
window = []
state = torch.zeros(1)
table = {"n": 0}
bank = torch.zeros(600_000)
numbers_of = itertools.count()
seen = []
shown = 0
last = 0.0
known_cache = {}

rng = np.random.default_rng(0)
center = torch.nn.BatchNorm1d(1, affine=False)

class Warmup:
    def __init__(self):
        self.calls = 0

    def step(self):
        self.calls += 1
        return 1 / self.calls

warmup = Warmup()

class Schedule:
    calls = 0
    reads = 0

    def step(self):
        Schedule.calls += 1
        return 1 / Schedule.calls

class Data(torch.utils.data.Dataset):
    reads = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        global loaded
        loaded += 1
        Data.reads += 1
        return torch.ones(1) * (1 + loaded % 2)

loaded = 0
schedule = Schedule()

def numbers():
    number = 0
    while True:
        number += 1
        yield number

ramp = numbers()

def by_count():
    global count
    count += 1
    return 1 / count

def by_late():
    global late
    late = globals().get("late", 0) + 1
    return 1 / late

def by_window():
    window.append(1.0)
    return sum(window[-3:])

def by_state():
    state.mul_(0.9).add_(1)
    return state.item()

def by_table():
    table["n"] += 1
    return 1 / table["n"]

def by_bank():
    bank.add_(1)
    return bank[0].item()

def by_counter():
    return 1 / (1 + next(numbers_of))

def by_class():
    return schedule.step()

def by_generator():
    return 1 / next(ramp)

def by_default(kept=[]):
    kept.append(1)
    return 1 / len(kept)

def by_attribute():
    by_attribute.calls = getattr(by_attribute, "calls", 0) + 1
    return 1 / by_attribute.calls

def by_object():
    return warmup.step()

def by_rng():
    return rng.random()

def by_module():
    return center(torch.rand(4, 1)).mean().item()

def of_nothing():
    return 1.0

def with_output():
    global shown, last
    shown += 1
    seen.append(1.0)
    if shown % 2 == 0:
        print(f"{shown} calls, {time.time() - last:.1f} s")
        last = time.time()
    return 1.0

def remembered():
    known_cache[len(known_cache)] = 1.0
    return known_cache[0]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A file of the program, imported."""
    (tmp_path / "helper_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("helper_of_a_test")
    del sys.modules["helper_of_a_test"]


KINDS = {"untracked-variable", "untracked-object", "untracked-generator", "untracked-module"}


def reasons(folder, scale, data=((0.5,), (1.0,), (1.5,))):
    """Train with what `scale` returns, and return what was said to be kept in no checkpoint."""
    with trainerd.session(folder, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(2):
            for x in session.batches(data):
                optimizer.zero_grad()
                (model(torch.as_tensor(x)).sum() * scale()).backward()
                optimizer.step()
        return [each for each in session._run.suspicions.reasons if each.kind in KINDS]


def changed(folder, scale, data=((0.5,), (1.0,), (1.5,))):
    """Return what was said to have changed."""
    found = reasons(folder, scale, data)
    return [each.detail.removeprefix("training changes ").partition(",")[0] for each in found]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("by_count", "helper_of_a_test.count"),
        ("by_late", "helper_of_a_test.late"),
        ("by_window", "helper_of_a_test.window"),
        ("by_state", "helper_of_a_test.state"),
        ("by_table", "helper_of_a_test.table"),
        ("by_bank", "helper_of_a_test.bank"),
        ("by_counter", "helper_of_a_test.numbers_of"),
        ("by_class", "helper_of_a_test.Schedule.calls"),
        ("by_generator", "helper_of_a_test.ramp"),
        ("by_default", "a default argument of helper_of_a_test.by_default"),
        ("by_attribute", "attributes of helper_of_a_test.by_attribute"),
        ("by_object", "helper_of_a_test.warmup.calls"),
        ("by_rng", "training draws from helper_of_a_test.rng"),
    ],
)
def test_one_that_training_changes_is_said(function, name, module, tmp_path):
    assert changed(tmp_path / "run", getattr(module, function)) == [name]


@pytest.mark.parametrize("function", ["of_nothing", "with_output", "remembered"])
def test_what_is_left_alone_or_shown_or_computed_once_is_not(function, module, tmp_path):
    assert changed(tmp_path / "run", getattr(module, function)) == []


def test_what_code_that_loads_changes_is_saved_with_its_loop(module, tmp_path):
    loader = torch.utils.data.DataLoader(module.Data(), 2)
    assert changed(tmp_path / "run", module.of_nothing, loader) == []
    assert module.loaded == 8


def test_a_module_that_another_file_has_is_said(module, tmp_path):
    (reason,) = reasons(tmp_path / "run", module.by_module)
    assert reason.kind == "untracked-module"
    assert "helper_of_a_test.center" in reason.detail


def test_what_is_said_names_the_line_and_what_to_write(module, tmp_path):
    (reason,) = reasons(tmp_path / "run", module.by_window)
    assert reason.where.endswith("helper_of_a_test.py:7")
    expected = 'helper_of_a_test.window = session.value("window", helper_of_a_test.window).value'
    assert reason.hint == f"before the loop: {expected}"


def test_a_comment_silences_its_line(module, tmp_path):
    assert [each.detail.split()[2] for each in reasons(tmp_path / "one", module.by_late)]
    path = tmp_path / "helper_of_a_test.py"
    path.write_text(MODULE.replace("window = []", "window = []  # trainerd: ok"))
    linecache.checkcache()
    assert not reasons(tmp_path / "other", module.by_window)


def test_what_is_a_value_of_the_session_is_not_said(module, tmp_path):
    with trainerd.session(tmp_path / "run", seed=0) as session:
        model = torch.nn.Linear(1, 1)
        session.track(model=model)
        module.window = session.value("window", module.window).value
        for x in session.batches([torch.ones(1)] * 3):
            (model(x).sum() * module.by_window()).backward()
            model.zero_grad()
        assert not [each for each in session._run.suspicions.reasons if each.kind in KINDS]
