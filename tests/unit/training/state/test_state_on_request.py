"""State that is kept on request: files of a folder, gradients, subclasses of dict."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import trainerd
from trainerd.checkpoint.store import CheckpointStore
from trainerd.errors import CorruptError, UnsupportedValueError
from trainerd.training.state.kept_gradients import KeptGradients

pytestmark = pytest.mark.torch


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "inner" / "empty.txt").write_bytes(b"")
    with trainerd.Checkpointer(tmp_path / "store", {"files": trainerd.Files(folder)}) as checkpointer:
        checkpointer.save(step=1)
    (folder / "weights.bin").write_bytes(b"changed")
    (folder / "later.txt").write_text("not in the checkpoint")
    (folder / "inner" / "empty.txt").unlink()
    with trainerd.Checkpointer(tmp_path / "store", {"files": trainerd.Files(folder)}) as checkpointer:
        assert checkpointer.resume() is not None
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"weights.bin": bytes(range(256)), "empty.txt": b""}


def test_files_are_under_the_digests_of_the_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"\x01" * 5000)
    with trainerd.Checkpointer(tmp_path / "store", {"files": trainerd.Files(folder)}) as checkpointer:
        checkpointer.save(step=1)
        newest = checkpointer.wait()
    assert newest is not None
    path = newest.path / "rank-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[content.index(b"\x01" * 5000) + 100] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(CorruptError):
        CheckpointStore(tmp_path / "store").verify(newest)


def test_a_file_is_written_before_the_save_and_a_pattern_chooses(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "state.json").write_text("{}")
        (folder / "state.tmp").write_text("no")

    files = trainerd.Files(tmp_path / "f", pattern="*.json", write=write)
    assert list(files.state_dict()) == ["state.json"]


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", ""])
def test_no_file_is_written_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="outside"):
        trainerd.Files(tmp_path / "f").load_state_dict({name: torch.zeros(1, dtype=torch.uint8)})
    assert list(tmp_path.iterdir()) == []


class Config(dict[str, Any]):
    pass


class Point(NamedTuple):
    x: int


class Mode(Enum):
    FIT = "fit"


class Text(str):
    __slots__ = ()


def test_subclasses_become_plain_on_request() -> None:
    tensor = torch.ones(2)
    plain = trainerd.plain_tree(
        Config(a=Config(b=[Point(1), Mode.FIT]), c=Text("x"), t=tensor, d=OrderedDict(x=Config()))
    )
    assert plain == {"a": {"b": [(1,), "fit"]}, "c": "x", "t": tensor, "d": OrderedDict(x={})}
    assert [type(each) for each in (plain, plain["a"], plain["c"], plain["d"], plain["d"]["x"])] == [
        dict,
        dict,
        str,
        OrderedDict,
        dict,
    ]
    assert plain["t"] is tensor
    kept = trainerd.plain_tree({"c": Counter("aab"), "d": defaultdict(int, x=1), "s": torch.Size([2])})
    assert [type(each) for each in kept.values()] == [Counter, defaultdict, torch.Size]


class Holder:
    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def test_a_subclass_is_refused_and_its_plain_form_is_not(tmp_path: Path) -> None:
    config = Config(lr=0.1)
    with (
        trainerd.Checkpointer(tmp_path / "a", Holder(config), asynchronous=False) as checkpointer,
        pytest.raises(UnsupportedValueError),
    ):
        checkpointer.save(step=1)
    holder = Holder(trainerd.plain_tree(config))
    with trainerd.Checkpointer(tmp_path / "b", holder, asynchronous=False) as checkpointer:
        checkpointer.save(step=1)


def test_gradients_are_kept_where_they_are_needed() -> None:
    def parts(*, is_needed: bool) -> tuple[torch.nn.Linear, KeptGradients]:
        model = torch.nn.Linear(2, 1)
        return model, KeptGradients([torch.optim.SGD(model.parameters(), 0.1)], lambda: is_needed)

    model, kept = parts(is_needed=True)
    model(torch.ones(1, 2)).sum().backward()
    model.bias.grad = None
    other, others = parts(is_needed=False)
    other(torch.ones(1, 2)).sum().backward()
    assert others.state_dict() == {}
    others.load_state_dict(kept.state_dict())
    assert torch.equal(other.weight.grad, torch.ones(1, 2))
    assert other.bias.grad is None
    assert other.weight.grad is not model.weight.grad
