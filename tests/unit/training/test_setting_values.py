"""A setting of a wrong type is an error that names it and says what is meant; dicts as in a spec are read."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from trainerd.contract.policy import Cadence, KeepBest, KeepEvery  # noqa: E402
from trainerd.errors import UserError  # noqa: E402
from trainerd.training.setting_values import SettingValues  # noqa: E402
from trainerd.training.settings import resolve_settings  # noqa: E402

pytestmark = pytest.mark.torch

GOOD = {"seed": 0, "every": None, "keep_last": 3, "keep_best": None, "keep_every": None, "grace_s": None}
SETTINGS = [name for name in inspect.signature(resolve_settings).parameters if name != "environ"]
ARGUMENTS = [name for name in inspect.signature(trainerd.Checkpointer.__init__).parameters if name != "self"]


class Unshowable:
    def __repr__(self):
        raise RuntimeError


WRONG = [
    object(), Unshowable(), b"x", 2.5, float("nan"), {"x": 1}, {1: 2}, [{"x": 1}], ["x", 3], [object()],
    {"metric": 3}, {"metric": "a", "n": "2"}, {"metric": "a", "mode": "best"}, {"steps": "x"},
    {"seconds": []}, {"epochs": 0}, {"steps": True},
]  # fmt: skip
MEANT = {"grace_s": {2.5}}
"""Those of them that are meant somewhere."""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_a_session_is_named_if_it_is_wrong(tmp_path, name, wrong):
    if not isinstance(wrong, Unshowable | dict | list) and wrong in MEANT.get(name, ()):
        return
    place = {} if name in {"run", "run_dir"} else {"run_dir": tmp_path / "run"}
    with pytest.raises(UserError, match=rf"session\({name}\b"):
        resolve_settings(**{"run_dir": None, **GOOD, **place, name: wrong}, environ={})


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_of_a_checkpointer_is_named_if_it_is_wrong(tmp_path, name, wrong):
    arguments = {"directory": tmp_path, "objects": torch.nn.Linear(1, 1), name: wrong}
    if name == "objects" and isinstance(wrong, dict):
        return  # the message names the object
    with pytest.raises(UserError, match=rf"Checkpointer\({name}\b"):
        trainerd.Checkpointer(**arguments)


@pytest.fixture
def values():
    return SettingValues("session")


def test_rules_are_read_in_the_form_of_a_spec(values):
    best = KeepBest("loss", n=2, mode="min", on_tie="latest")
    plain = {"metric": "loss", "n": 2, "mode": "min", "on_tie": "latest"}
    assert values.keep_best(plain) == values.keep_best(best) == values.keep_best([best]) == (best,)
    assert values.keep_best([plain, {"metric": "accuracy"}]) == (best, KeepBest("accuracy"))
    assert values.keep_best(None) == values.keep_best([]) == ()
    assert values.keep_every({"epochs": 10}) == KeepEvery(epochs=10)
    assert values.cadence({"steps": 2, "seconds": None}) == Cadence(steps=2, seconds=None)
    assert values.cadence(None) == Cadence()


def test_numbers_of_other_kinds_are_taken_as_what_they_are(values):
    assert values.integer("seed", np.int64(7), at_least=0) == 7
    assert values.integer("seed", 1e3, at_least=0) == 1000
    assert values.seconds("grace_s", np.float32(2.5)) == 2.5
    assert values.cadence({"seconds": float("inf")}).seconds == float("inf")
    assert values.flag("fresh", np.True_) is True
    assert values.flag("fresh", 0) is False


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("accuracy", "write keep_best=trainerd.KeepBest('accuracy')"),
        ({"metrik": "accuracy"}, "did you mean 'metric'"),
        ({"n": 2}, "metric is missing"),
        ({"metric": "accuracy", "n": 0}, "must be at least 1"),
        ({"metric": "accuracy", "mode": "largest"}, "'max' or 'min'"),
        ({"metric": "top 1"}, "without spaces"),
        (3, 'trainerd.KeepBest("accuracy", n=2), {"metric": "accuracy", "n": 2} or a list of these'),
    ],
)
def test_a_wrong_rule_says_what_to_write(values, given, says):
    with pytest.raises(UserError) as caught:
        values.keep_best(given)
    assert says in str(caught.value)


@pytest.mark.parametrize("seed", [-(1 << 63) - 1, 1 << 64])
def test_a_seed_that_torch_does_not_take_is_out_of_range(tmp_path, seed):
    with pytest.raises(UserError, match=r"session\(seed=-?\d+\): must be at (least|most)"):
        resolve_settings(**{**GOOD, "run_dir": tmp_path, "seed": seed}, environ={})
