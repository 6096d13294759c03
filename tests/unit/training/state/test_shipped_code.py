"""The code of a worker that was sent a function counts in the fingerprint, wherever it was written."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

pytest.importorskip("torch")

from trainerd.training.state import program_fingerprint
from trainerd.training.state.program_fingerprint import take_fingerprint
from trainerd.training.state.shipped_code import shipped_code

pytestmark = pytest.mark.torch

WORKER = "/venv/lib/python3.11/site-packages/ray/_private/workers/default_worker.py"
SCRIPT = """
import torch
RATE = 0.1
class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2
    @property
    def width(self):
        return 3
    @staticmethod
    def scale():
        return {"a", "b"} | {"c"}
def helper(x):
    def inner(y):
        return y + 1
    return inner(x) in {"one", "two"}
def train():
    helper(1), Model
    return take()
"""


def code_of(text: str = SCRIPT, *, file: str = "/tmp/session_1/train.py") -> dict[str, str]:
    scope: dict[str, Any] = {"__name__": "__main__", "take": taken}
    exec(compile(text, file, "exec"), scope)
    return scope["train"]()


def taken() -> dict[str, str]:
    code = take_fingerprint({}, seed=0, world_size=1)["code"]
    return {name: each for name, each in code.items() if name.startswith("__main__:")}


@pytest.fixture(autouse=True)
def _worker(monkeypatch):
    monkeypatch.setattr(sys, "argv", [WORKER, "--startup-token=3"])
    monkeypatch.setattr(program_fingerprint, "CODE_FILES_MAX", 10_000)  # these tests are modules, too


def test_functions_and_methods_that_came_with_the_loop_are_named():
    names = {name.removeprefix("__main__:") for name in code_of()}
    assert names == {"train", "helper", "Model.forward", "Model.width", "Model.scale"}


def test_the_same_code_elsewhere_is_the_same():
    assert code_of() == code_of("# moved\n\n" + SCRIPT, file="/tmp/session_2/other.py") == code_of()


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("x * 2", "x * 3", "Model.forward"),
        ("return 3", "return 4", "Model.width"),
        ('{"c"}', '{"d"}', "Model.scale"),
        ("y + 1", "y - 1", "helper"),
        ('"two"', '"three"', "helper"),
        ("helper(1)", "helper(1.0)", "train"),
        ("helper(1)", "helper(True)", "train"),
    ],
)
def test_what_changed_in_it_is_named(before, after, name):
    first, second = code_of(), code_of(SCRIPT.replace(before, after))
    assert {each for each in first if first[each] != second[each]} == {f"__main__:{name}"}


def test_modules_of_the_user_count_by_their_content(monkeypatch, tmp_path):
    module = tmp_path / "shipped_module.py"
    module.write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "shipped_module", importlib.import_module("shipped_module"))
    before = shipped_code()
    module.write_text("a = 2\n")
    after = shipped_code()
    assert before["shipped_module"] != after["shipped_module"]
    assert not [name for name in before if name.partition(".")[0] in {"torch", "numpy", "trainerd", "typing"}]


def test_a_script_of_its_own_counts_as_before(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert code_of() == {}
