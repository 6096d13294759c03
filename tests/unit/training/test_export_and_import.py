"""`trainerd import`: a run that begins with what a plain script saved, without executing anything in it."""

from __future__ import annotations

import argparse
import json
import random
import sys

import pytest
import torch
from click.testing import CliRunner

import trainerd
from tests.support.exact import assert_same
from trainerd import Checkpointer
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli.main import group
from trainerd.contract.paths import RunPaths
from trainerd.training.state.copied_state import copied_state

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def same_hooks(monkeypatch):
    """A session sets a hook for uncaught errors, which belongs to a whole process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def trained(seed: int, optimizer=torch.optim.Adam):
    """Return a model and an optimizer after two steps."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(2, 2)
    live = optimizer(model.parameters(), lr=0.01)
    for _ in range(2):
        model(torch.randn(3, 2)).sum().backward()
        live.step()
    return model, live


def invoke(*arguments):
    return CliRunner().invoke(group, ["import", *map(str, arguments)])


def write(tmp_path, content):
    torch.save(content, tmp_path / "plain.pt")
    return tmp_path / "plain.pt"


def resumed(run_dir, seen=None, **values):
    """Run a session to its third epoch; return what it began with."""
    model, optimizer = torch.nn.Linear(2, 2), None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    with trainerd.session(run_dir, seed=5) as session:
        session.track(model=model, optimizer=optimizer)
        boxes = {name: session.value(name, default) for name, default in values.items()}
        session.resume()
        began = {
            "model": copied_state(model.state_dict()),
            "optimizer": copied_state(optimizer.state_dict()),
            "step": session.step,
            "epoch": session.epoch,
            "draw": (random.random(), torch.rand(1)),
            **{name: box.value for name, box in boxes.items()},
        }
        for _ in session.epochs(session.epoch + 1):
            for batch in session.batches(torch.utils.data.DataLoader(torch.randn(4, 2), batch_size=2)):
                model(batch).sum().backward()
                optimizer.step()
    return began


def test_a_tutorials_file_becomes_the_first_checkpoint_of_a_run(tmp_path):
    """The session goes on with the next epoch, the state, the steps of the optimizer and the plain values."""
    model, optimizer = trained(1)
    file = write(
        tmp_path,
        {
            "epoch": 4,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "loss": 0.25,
        },
    )
    result = invoke(file, "--run", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "epoch 4 of the file counts as done" in result.output
    assert result.output.count("warning") == 1
    assert "no random states" in result.output
    began = resumed(tmp_path / "run", loss=9.0)
    assert_same(began["model"], model.state_dict())
    assert_same(began["optimizer"], optimizer.state_dict())
    assert (began["epoch"], began["step"], began["loss"]) == (5, 2, 0.25)
    assert RunPaths(tmp_path / "run").finished.exists()
    first, *_, last = CheckpointStore.of_run(RunPaths(tmp_path / "run")).checkpoints()
    assert (first.manifest.reason, first.manifest.fingerprint) == ("imported", {"imported_from": "plain.pt"})
    assert last.manifest.lineage == first.manifest.lineage


def test_the_generators_are_those_of_a_new_run_with_the_seed(tmp_path):
    """What an imported run draws depends on its seed alone, not on the process that imported it."""
    file = write(tmp_path, trained(1)[0].state_dict())
    draws = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        random.seed(len(draws))
        before = random.getstate()
        assert invoke(file, "--run", tmp_path / name, "--seed", seed).exit_code == 0
        assert random.getstate() == before
        model = torch.nn.Linear(2, 2)
        with trainerd.session(tmp_path / name) as session:
            session.track(model=model)
            session.resume()
            draws[name] = (random.random(), float(torch.rand(1)))
    random.seed(3)
    torch.manual_seed(3)
    assert draws["a"] == draws["b"] == (random.random(), float(torch.rand(1)))
    assert draws["c"] != draws["a"]


CONTENTS = {
    "torchvision's": (
        lambda m, o: {
            "model": m,
            "optimizer": o,
            "lr_scheduler": {"last_epoch": 1},
            "epoch": 1,
            "args": argparse.Namespace(lr=1),
        },
        ["model", "optimizer", "lr_scheduler"],
    ),
    "of imagenet": (
        lambda m, o: {"epoch": 2, "arch": "resnet", "state_dict": m, "optimizer": o, "best_acc1": 0.5},
        ["model", "optimizer"],
    ),
    "a bare state": (lambda m, o: m, ["model"]),
    "of DDP": (
        lambda m, o: {"model_state_dict": {f"module.{key}": value for key, value in m.items()}},
        ["model"],
    ),
    "of a compiled DDP": (
        lambda m, o: {"net_state_dict": {f"_orig_mod.module.{key}": value for key, value in m.items()}},
        ["net"],
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_usual_ways_of_writing_such_files_are_known(tmp_path, name):
    build, names = CONTENTS[name]
    model, optimizer = trained(1)
    file = write(tmp_path, build(model.state_dict(), optimizer.state_dict()))
    result = invoke(file, "--run", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert f": {', '.join(names)}; step" in result.output
    fresh = torch.nn.Linear(2, 2)
    store = CheckpointStore.of_run(RunPaths(tmp_path / "run"))
    Checkpointer(store, {names[0]: fresh}).load(store.checkpoints()[0], only=[names[0]])
    assert_same(fresh.state_dict(), model.state_dict())


def test_names_epochs_and_steps_can_be_said(tmp_path):
    model, optimizer = trained(1)
    file = write(tmp_path, {"weights": model.state_dict(), "opt": optimizer.state_dict(), "epoch": 9})
    result = invoke(
        file,
        "--run",
        tmp_path / "run",
        "--map",
        "weights=model",
        "--map",
        "opt=optimizer",
        "--epochs-done",
        9,
        "--step",
        700,
    )
    assert result.exit_code == 0, result.output
    began = resumed(tmp_path / "run")
    assert (began["epoch"], began["step"]) == (9, 700)
    assert_same(began["model"], model.state_dict())


def test_what_was_exported_as_a_whole_can_be_imported(tmp_path):
    model, optimizer = trained(1)
    with Checkpointer(tmp_path / "first", {"model": model, "optimizer": optimizer}) as checkpointer:
        checkpointer.save(step=2, epoch=1)
    done = CliRunner().invoke(group, ["export", str(tmp_path / "first"), str(tmp_path / "all.pt"), "--all"])
    assert done.exit_code == 0, done.output
    result = invoke(tmp_path / "all.pt", "--run", tmp_path / "run")
    assert result.exit_code == 0, result.output
    began = resumed(tmp_path / "run")
    assert (began["epoch"], began["step"]) == (1, 2)
    assert_same(began["optimizer"], optimizer.state_dict())


def test_what_was_done_is_told_as_json_too(tmp_path):
    model, optimizer = trained(1)
    file = write(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loss": 1.0})
    told = json.loads(invoke(file, "--run", tmp_path / "run", "--json").stdout)
    assert (told["checkpoint"], told["tracked"]) == ("step-000000002", ["model", "optimizer"])
    assert (told["values"], told["step"], told["epochs_done"], len(told["notes"])) == (["loss"], 2, 0, 2)


def test_a_job_is_named_by_its_name(tmp_path):
    (tmp_path / "state").mkdir()
    file = write(tmp_path, trained(1)[0].state_dict())
    assert invoke(file, "--run", "mnist", "--state", tmp_path / "state").exit_code == 0
    assert CheckpointStore.of_run(RunPaths(tmp_path / "state" / "runs" / "mnist")).checkpoints()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_file_is_not_executed_and_the_way_out_is_shown(tmp_path):
    file = write(tmp_path, {"model_state_dict": trained(1)[0].state_dict(), "args": Bomb(tmp_path / "boom")})
    result = invoke(file, "--run", tmp_path / "run")
    assert result.exit_code == 1
    assert "cannot be read without executing code" in result.output
    assert "torch.save({" in result.output
    assert not (tmp_path / "boom").exists()
    assert not (tmp_path / "run").exists()


REFUSED = {
    "a whole model": (lambda: torch.nn.Linear(1, 1), [], "without executing code"),
    "a tensor": (lambda: torch.ones(1), [], "holds a Tensor"),
    "no state": (lambda: {"epoch": 1}, [], "holds no state dict"),
    "an unknown key": (lambda: {"model": {}}, ["--map", "net=model"], "has no key 'net'"),
    "one name twice": (lambda: {"state_dict": {}, "model": {}}, [], "cannot be tracked as 'model'"),
    "an ill-formed map": (lambda: {"model": {}}, ["--map", "model"], "KEY=NAME is meant"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_refused(tmp_path, name):
    build, options, said = REFUSED[name]
    result = invoke(write(tmp_path, build()), "--run", tmp_path / "run", *options)
    assert result.exit_code == 1, result.output
    assert said in result.output
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    for file, said in (
        (tmp_path / "text.pt", "no file of torch.save"),
        (tmp_path / "gone.pt", "there is no file"),
    ):
        result = invoke(file, "--run", tmp_path / "run")
        assert (result.exit_code, said in result.output) == (1, True), result.output


def test_a_run_that_has_begun_is_left_alone(tmp_path):
    file = write(tmp_path, trained(1)[0].state_dict())
    assert invoke(file, "--run", tmp_path / "run").exit_code == 0
    result = invoke(file, "--run", tmp_path / "run")
    assert (result.exit_code, "has a checkpoint already" in result.output) == (1, True)
    assert len(CheckpointStore.of_run(RunPaths(tmp_path / "run")).checkpoints()) == 1
