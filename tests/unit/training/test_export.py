"""`trainerd export`: plain files that others can read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from tests.support.checkpoints import flip_bit
from tests.support.exact import Box, assert_same
from trainerd import Checkpointer
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli.main import group
from trainerd.contract import codec
from trainerd.contract.paths import RunPaths
from trainerd.contract.policy import RETENTION_FORMAT, KeepBest, RetentionPolicy

pytestmark = pytest.mark.torch


def network():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    model.add_module("tied", model[0])
    return model


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints; returns its state folder, its folder and the model of each step."""
    run = RunPaths(tmp_path / "state" / "runs" / "mnist")
    states = {}
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    objects = {"model": model, "optimizer": optimizer}
    with Checkpointer(CheckpointStore.of_run(run), objects, keep_last=None) as checkpointer:
        for step, loss in ((1, 0.5), (2, 0.75)):
            model(torch.randn(4, 2)).sum().backward()
            optimizer.step()
            states[step] = {key: value.clone() for key, value in model.state_dict().items()}
            checkpointer.save(step=step, epoch=step, scores={"loss": loss})
    return tmp_path / "state", run, states


def export(*arguments, state=None):
    options = ["--state", str(state)] if state is not None else []
    return CliRunner().invoke(group, ["export", *map(str, arguments), *options])


def load(path):
    return torch.load(path, weights_only=True)


def test_the_newest_model_becomes_a_file_that_torch_loads_without_pickle(run, tmp_path):
    state, _, states = run
    result = export("mnist", tmp_path / "model.pt", state=state)
    assert result.exit_code == 0, result.output
    assert "step-000000002" in result.output
    loaded = load(tmp_path / "model.pt")
    assert_same(dict(loaded), states[2])
    network().load_state_dict(loaded)
    assert loaded["0.weight"].data_ptr() == loaded["tied.weight"].data_ptr()


def test_a_safetensors_file_holds_every_name(run, tmp_path):
    """Also the second name of a tied tensor, so that it loads as a whole."""
    state, _, states = run
    assert export("mnist", tmp_path / "model.safetensors", state=state).exit_code == 0
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == states[2].keys()
    for key, value in states[2].items():
        assert_same(loaded[key], value)


def test_the_file_is_no_larger_than_the_model(run, tmp_path):
    """The checkpoint's other tensors, which were read from the same file, are not in it."""
    state, _, _ = run
    export("mnist", tmp_path / "model.safetensors", state=state)
    assert (tmp_path / "model.safetensors").stat().st_size < 4096 + 200
    big = {"model": torch.nn.Linear(1, 1), "other": Box(torch.zeros(1 << 18))}
    with Checkpointer(tmp_path / "big", big) as checkpointer:
        checkpointer.save(step=1)
    assert export(tmp_path / "big", tmp_path / "small.pt").exit_code == 0
    assert (tmp_path / "small.pt").stat().st_size < 1 << 16


@pytest.mark.parametrize(
    ("options", "step"),
    [
        (["--checkpoint", "step-1"], 1),
        (["--best", "loss", "--mode", "min"], 1),
        (["--best", "loss", "--mode", "max"], 2),
    ],
)
def test_a_checkpoint_is_chosen_by_step_or_by_score(run, tmp_path, options, step):
    state, _, states = run
    result = export("mnist", tmp_path / "model.pt", *options, state=state)
    assert result.exit_code == 0, result.output
    assert_same(dict(load(tmp_path / "model.pt")), states[step])


def test_what_is_better_is_what_the_run_says(run, tmp_path):
    state, paths, states = run
    result = export("mnist", tmp_path / "model.pt", "--best", "loss", state=state)
    assert (result.exit_code, "--mode max or --mode min" in result.output) == (1, True)
    policy = RetentionPolicy(keep_best=(KeepBest("loss", mode="min"),))
    paths.retention.write_bytes(codec.to_json(policy, RETENTION_FORMAT))
    assert export("mnist", tmp_path / "model.pt", "--best", "loss", state=state).exit_code == 0
    assert_same(dict(load(tmp_path / "model.pt")), states[1])


def test_all_of_it_is_what_tutorials_write(run, tmp_path):
    state, _, states = run
    assert export("mnist", tmp_path / "all.pt", "--all", state=state).exit_code == 0
    content = load(tmp_path / "all.pt")
    assert content.keys() == {"step", "epochs_done", "model_state_dict", "optimizer_state_dict"}
    assert_same(dict(content["model_state_dict"]), states[2])
    model = network()
    torch.optim.SGD(model.parameters()).load_state_dict(content["optimizer_state_dict"])


def test_numbers_and_arrays_of_numpy_become_plain_ones(tmp_path):
    tree = {
        "a": np.float32(0.5),
        "b": [np.arange(3)],
        "c": Counter("aab"),
        "d": defaultdict(list, {1: [np.int64(2)]}),
    }
    with Checkpointer(tmp_path / "box", {"box": Box(tree)}) as checkpointer:
        checkpointer.save(step=1)
    result = export(tmp_path / "box", tmp_path / "all.pt", "--all")
    assert result.exit_code == 0, result.output
    loaded = load(tmp_path / "all.pt")["box_state_dict"]
    assert (loaded["a"], loaded["b"][0].tolist(), loaded["c"], loaded["d"]) == (
        0.5,
        [0, 1, 2],
        Counter("aab"),
        {1: [2]},
    )


def test_a_damaged_newest_one_is_passed_over_and_left_where_it_is(run, tmp_path):
    """Somebody who only looks moves nothing; the trainer will."""
    state, paths, states = run
    flip_bit(paths.checkpoints / "step-000000002" / "rank-00000.safetensors")
    result = export("mnist", tmp_path / "model.pt", state=state)
    assert "step-000000001" in result.output
    assert_same(dict(load(tmp_path / "model.pt")), states[1])
    assert (paths.checkpoints / "step-000000002").is_dir()


def bad_calls(run, tmp_path):
    _, paths, _ = run
    (tmp_path / "there.pt").write_text("mine")
    with Checkpointer(tmp_path / "two", {"a": network(), "b": network()}) as checkpointer:
        checkpointer.save(step=1)
    with Checkpointer(
        tmp_path / "odd", {"box": Box({"x": range(3)}), "model": torch.nn.Linear(1, 1).to(torch.complex128)}
    ) as checkpointer:
        checkpointer.save(step=1)
    (tmp_path / "empty").mkdir()
    flip_bit(paths.checkpoints / "step-000000001" / "rank-00000.safetensors")
    yield ["mnist", tmp_path / "there.pt"], "exists already"
    yield ["mnist", tmp_path / "model.onnx"], "end in .pt or .pth or .safetensors"
    yield ["mnits", tmp_path / "x.pt"], "no job 'mnits'"
    yield [tmp_path / "nowhere", tmp_path / "x.pt"], "there is no folder"
    yield [tmp_path / "empty", tmp_path / "x.pt"], "holds no checkpoint that verifies"
    yield ["mnist", tmp_path / "x.pt", "--checkpoint", "7"], "there are: step-000000001, step-000000002"
    yield ["mnist", tmp_path / "x.pt", "--checkpoint", "1"], "digest"
    yield ["mnist", tmp_path / "x.pt", "--best", "f1", "--mode", "max"], "has a score 'f1'\n  there are: loss"
    yield ["mnist", tmp_path / "x.pt", "--best", "a", "--checkpoint", "1"], "name two checkpoints"
    yield ["mnist", tmp_path / "x.pt", "--object", "ema"], "its modules are: model"
    yield [tmp_path / "two", tmp_path / "x.pt"], "its modules are: a, b"
    yield [tmp_path / "odd", tmp_path / "x.safetensors"], "holds plain tensors only"
    yield [tmp_path / "odd", tmp_path / "x.pt", "--all"], "would refuse it"
    yield ["mnist", tmp_path / "x.safetensors", "--all"], "--all is for .pt files"
    yield ["mnist", tmp_path / "no" / "folder" / "x.pt"], "there is no folder"


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_what_cannot_be_exported_is_refused_and_nothing_is_left(run, tmp_path):
    for arguments, said in bad_calls(run, tmp_path):
        result = export(*arguments, state=run[0])
        assert result.exit_code == 1, (arguments, result.output, result.exception)
        assert said in result.output, (arguments, result.output)
        assert not list(tmp_path.glob("x.*")) + list(tmp_path.glob(".x*"))
    assert (tmp_path / "there.pt").read_text() == "mine"


def test_what_was_done_is_told_as_json_too(run, tmp_path):
    result = export("mnist", tmp_path / "model.pt", "--json", state=run[0])
    told = json.loads(result.stdout)
    size = (tmp_path / "model.pt").stat().st_size
    assert told == {
        "file": str(tmp_path / "model.pt"),
        "checkpoint": "step-000000002",
        "is_whole": False,
        "bytes": size,
    }


def test_an_existing_file_is_replaced_when_that_is_asked_for(run, tmp_path):
    (tmp_path / "model.pt").write_text("old")
    assert export("mnist", tmp_path / "model.pt", "--force", state=run[0]).exit_code == 0
    load(tmp_path / "model.pt")


def test_without_torch_it_says_what_is_missing(tmp_path):
    program = f"""
import sys
sys.modules["torch"] = None
sys.argv = ["trainerd", "export", "mnist", "x.pt", "--state", {str(tmp_path)!r}]
from trainerd.cli.main import main
main()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "trainerd export needs torch" in result.stderr
    assert "Traceback" not in result.stderr
