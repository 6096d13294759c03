"""Values come back in the objects that the script has, and what it had replaced as new ones."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import trainerd
from tests.support.exact import assert_same
from tests.support.in_process import attempt, disturbed, undisturbed
from trainerd.errors import UnknownVariableError, UnsupportedValueError, UserError
from trainerd.training.state.in_place import InPlaceRestore, Mark
from trainerd.training.state.values import Values

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:trainerd")]

PAIRS = {
    "list": ([1, 2], [3]),
    "dict": ({"a": 1}, {"b": 2, "c": 3}),
    "ordered dict": (OrderedDict(a=1), OrderedDict(c=3, b=2)),
    "default dict": (defaultdict(int, a=1), defaultdict(list, a=[1])),
    "counter": (Counter("ab"), Counter("bbc")),
    "set": ({1, 2}, {3}),
    "deque": (deque([1], 3), deque([1, 2, 3], 3)),
    "bytearray": (bytearray(b"a"), bytearray(b"bcd")),
    "tensor": (torch.zeros(2), torch.ones(2)),
    "scalar tensor": (torch.tensor(0), torch.tensor(3)),
    "parameter": (nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))),
    "leaf": (torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)),
    "array": (np.zeros(3), np.ones(3)),
    "nothing to begin with": ([], [[1, {"a": torch.ones(2)}]]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_can_be_changed_is_restored_where_it_is(name):
    live, saved = copy.deepcopy(PAIRS[name])
    result = InPlaceRestore().restored(live, saved)
    assert result is live
    assert result is not saved
    assert_same(live, saved)


def test_what_is_nested_is_restored_where_it_is():
    inner, tensor, members = [1], torch.zeros(2), {1}
    live = {"a": [inner, (tensor, members)], "gone": 1}
    InPlaceRestore().restored(live, {"a": [[2, 3], (torch.ones(2), {4})], "new": 5})
    assert live["a"][0] is inner == [2, 3]
    assert live["a"][1][0] is tensor
    assert tensor.tolist() == [1, 1]
    assert members == {4}
    assert list(live) == ["a", "new"]


OTHERS = {
    "another type": ([1], (1,)),
    "another shape": (torch.zeros(2), torch.ones(3)),
    "another dtype": (torch.zeros(2), torch.ones(2, dtype=torch.float64)),
    "another layout in memory": (torch.zeros(2, 2), torch.tensor([[1.0, 2], [3, 4]]).t()),
    "a view of one element": (torch.zeros(1).expand(3), torch.arange(3.0)),
    "a node of a graph": (torch.zeros(2, requires_grad=True) * 2, torch.ones(2)),
    "no parameter": (nn.Parameter(torch.zeros(2)), torch.ones(2)),
    "another length of a deque": (deque([1], 2), deque([1], 3)),
    "an array that cannot be written": (np.frombuffer(b"12345678", dtype=np.int64), np.array([3])),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_is_a_copy(name):
    live, saved = OTHERS[name]
    result = InPlaceRestore().restored(live, saved)
    assert result is not live
    assert result is not saved
    assert_same(result, saved)


def test_one_object_in_two_places_is_not_two_values():
    shared = [0]
    live = [shared, shared]
    InPlaceRestore().restored(live, [[1], [2]])
    assert live == [[1], [2]]


def test_one_object_in_two_places_stays_one():
    shared = [0]
    live = [shared, shared]
    InPlaceRestore().restored(live, [[1], [1]])
    assert live[0] is live[1] is shared
    tensor = torch.ones(2)
    pair = InPlaceRestore().restored([None, None], [tensor, tensor])
    assert pair[0] is pair[1]


def test_what_contains_itself_does_not_end_the_world():
    live: list = []
    live.append(live)
    assert InPlaceRestore().restored(live, [[1]]) == [[1]]


def test_a_mark_tells_what_was_replaced_and_not_what_changed():
    value = {"a": [1], "b": torch.zeros(2), "c": ([2],), "d": 3}
    mark = Mark(value)
    value["a"].append(2)
    value["b"] += 1
    value["d"] = 4
    assert mark.replaced(value) == []
    value["b"] = torch.ones(2)
    value["c"][0][:] = [5]
    value["e"] = [[]]
    assert mark.replaced(value) == [("b",), ("e",)]
    assert mark.replaced([1]) == [()]


def through(values, other, **settings):
    other.load_state_dict(copy.deepcopy(values.state_dict()), copy.deepcopy(values.objects()), **settings)


def test_a_value_that_was_replaced_leaves_its_first_object_alone():
    """The first hidden state, to which each epoch returns, is not overwritten by the newest one."""
    values = Values()
    values.box("hidden", torch.zeros(2)).value = torch.ones(2)
    zeros = torch.zeros(2)
    other = Values()
    through(values, other)
    box = other.box("hidden", zeros)
    assert box.value.tolist() == [1, 1]
    assert zeros.tolist() == [0, 0]


def test_a_value_asked_for_before_the_resume_is_the_same_box():
    values = Values()
    values.box("seen", []).value.append(1)
    other = Values()
    seen: list = []
    box = other.box("seen", seen)
    through(values, other)
    assert box.value is seen
    assert seen == [1]


def test_a_value_that_was_not_asked_for_yet_is_carried_along_with_its_notes():
    values = Values()
    values.box("hidden", torch.zeros(2)).value = torch.ones(2)
    other, third = Values(), Values()
    through(values, other)
    through(other, third)
    zeros = torch.zeros(2)
    assert third.box("hidden", zeros).value.tolist() == [1, 1]
    assert zeros.tolist() == [0, 0]


def test_what_a_checkpoint_gave_is_not_changed_by_the_script():
    """The same tree is put back twice."""
    state = {"seen": [1], "total": torch.ones(1)}
    values = Values()
    values.load_state_dict(state)
    values.box("seen", []).value.append(2)
    values.box("total", None).value.add_(1)
    assert state == {"seen": [1], "total": torch.ones(1)}


# ---------------------------------------------------------------------- in a loop


class Training:
    """Uses values in every way that a script does, before the loop and in it."""

    def __init__(self, how):
        self.how = how
        self.result = None

    def __call__(self, session, tick):
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        uses = self.how(session)
        for epoch in session.epochs(3):
            uses.head(epoch)
            for batch in session.batches([torch.full((2, 2), float(each)) for each in range(4)]):
                tick()
                optimizer.zero_grad()
                loss = model(batch).square().mean()
                loss.backward()
                optimizer.step()
                session.log(loss=loss, used=uses.body(batch))
        self.result = uses.used


class ChangedInPlace:
    """A list, a tensor and a nested dict, through names of the script's own."""

    def __init__(self, session):
        self.seen, self.total = [], torch.zeros(2)
        self.counts = {"epochs": [0]}
        session.value("seen", self.seen)
        session.value("total", self.total)
        session.value("counts", self.counts)

    def head(self, epoch):
        self.seen.append(epoch)
        self.total += 1
        self.counts["epochs"][0] += 1

    def body(self, batch):
        self.total.mul_(0.5).add_(batch[0])
        self.seen.append(-1)
        return float(self.used[1].sum()) + len(self.used[0])

    @property
    def used(self):
        return self.seen, self.total, self.counts


class ReplacedAndReset:
    """A hidden state that begins each epoch with the same zeros, and is another tensor after each batch."""

    def __init__(self, session):
        self.first = torch.zeros(2)
        self.carry = session.variables(hidden=self.first, state=(torch.zeros(1), [torch.zeros(1)]), steps=0)

    def head(self, epoch):
        self.carry.hidden = self.first

    def body(self, batch):
        self.carry.hidden = 0.9 * self.carry.hidden + batch[0]
        self.carry.state = (self.carry.state[0] + 1, [self.carry.state[1][0] + self.carry.hidden.sum()])
        self.carry.steps += 1
        return float(self.carry.hidden.sum()) + float(self.carry.state[1][0])

    @property
    def used(self):
        return self.first, self.carry.hidden, self.carry.state, self.carry.steps


class MadeInTheHead:
    """A list that is made where each epoch begins, and filled through a name of its own."""

    def __init__(self, session):
        self.box = session.value("recent", None)
        self.recent = None

    def head(self, epoch):
        self.box.value = self.recent = [epoch]

    def body(self, batch):
        self.recent.append(float(batch[0, 0]))
        return sum(self.recent) + sum(self.box.value)

    @property
    def used(self):
        return self.recent, self.box.value


class ReplacedOnceInTheLoop:
    """Replaced in one batch alone: it is another object than its first one after two resumes, too."""

    def __init__(self, session):
        self.first = [0.0]
        self.box = session.value("recent", self.first)

    def head(self, epoch):
        self.box.value = self.first

    def body(self, batch):
        if batch[0, 0] == 1:
            self.box.value = [1.0]
        self.box.value.append(1.0) if self.box.value is not self.first else None
        return sum(self.box.value) + 100 * sum(self.first)

    @property
    def used(self):
        return self.first, self.box.value


WAYS = (ChangedInPlace, ReplacedAndReset, MadeInTheHead, ReplacedOnceInTheLoop)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("crashes", [(3,), (4, 2), (6,), (8, 2, 3), (12,)])
def test_values_are_exact_whatever_the_script_does_with_them(tmp_path, how, crashes):
    whole, broken = Training(how), Training(how)
    expected = undisturbed(tmp_path / "whole", whole, steps=1)
    assert disturbed(tmp_path / "broken", broken, crashes, steps=1) == expected
    assert_same(broken.result, whole.result)


# ---------------------------------------------------------------------- the namespace


def test_variables_are_read_and_set_as_attributes(tmp_path):
    with trainerd.session(tmp_path) as session:
        carry = session.variables(total=0.0, hidden=None)
        carry.total += 2
        carry.hidden = [torch.ones(1)]
        assert session.value("total", None).value == 2
        assert dir(carry) == ["hidden", "total"]
        assert repr(carry) == "Variables(total=2.0, hidden=[tensor([1.])])"
        assert session.variables(total=0.0).total == 2


@pytest.mark.parametrize(
    "use", [lambda v: v.totl, lambda v: setattr(v, "totl", 1), lambda v: delattr(v, "totl")]
)
def test_an_unknown_variable_is_an_error_that_knows_the_nearest(tmp_path, use):
    with trainerd.session(tmp_path) as session:
        carry = session.variables(total=0.0, hidden=None)
        with pytest.raises(UnknownVariableError, match="no variable 'totl'; did you mean total") as raised:
            use(carry)
        assert "total, hidden" in str(raised.value)
        assert not hasattr(carry, "other")
        with pytest.raises(UserError, match="set it to None"):
            del carry.total


class Pair(NamedTuple):
    one: int
    other: int


@dataclass
class Point:
    one: int = 1


@pytest.mark.parametrize(
    ("value", "hint"), [(Pair(1, 2), "tuple"), (Point(), "asdict")], ids=["tuple", "data"]
)
def test_classes_of_the_scripts_own_are_refused_with_what_to_keep_in_their_place(tmp_path, value, hint):
    def loop(session, tick):
        session.variables(carry=value)
        list(session.batches([torch.ones(1)]))

    with pytest.raises(UnsupportedValueError, match=hint):
        attempt(tmp_path, loop)


def test_a_node_of_a_graph_comes_back_as_a_leaf_without_gradient(tmp_path):
    def loop(session, tick):
        carry = session.variables(hidden=None)
        for _ in session.epochs(2):
            for batch in session.batches([torch.ones(1)] * 2):
                found.append(carry.hidden)
                carry.hidden = batch.clone().requires_grad_() * 2
                tick()

    found: list = []
    assert not attempt(tmp_path, loop, crash_at=4, steps=1)
    found.clear()
    assert attempt(tmp_path, loop, steps=1)
    assert found[0].tolist() == [2]
    assert found[0].is_leaf
    assert not found[0].requires_grad
