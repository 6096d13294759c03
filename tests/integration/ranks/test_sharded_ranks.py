"""FSDP2 on two ranks: each saves its part; it goes on with as many ranks, and with one, and with two
again."""

from __future__ import annotations

import signal

import pytest
import torch

from chaos.second_reader import read, whole_tensors
from tests.support.rank_runs import SHARDED_LOOP, Attempt
from tests.support.training_runs import result_of
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.training.exporting import model_state

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]


def attempt(run, *arguments, world_size=2):
    return Attempt(run, *arguments, script=SHARDED_LOOP, world_size=world_size)


def finish(run, *arguments, world_size=2):
    with attempt(run, *arguments, world_size=world_size) as whole:
        assert whole.wait() == [0] * world_size, whole.output
    return states(whole)


def drain(run, at_step, *arguments, world_size=2):
    with attempt(run, "--step-ms", 40, *arguments, world_size=world_size) as part:
        part.wait_for_step(0, at_step)
        part.send(world_size - 1, signal.SIGTERM)
        assert part.wait() == [DRAINED] * world_size, part.output
    return states(part)


def states(part):
    """Return the digest of the whole state at each step, and that after the resume; all ranks say the
    same."""
    said = []
    for log in part.logs:
        words = [line.split() for line in log.read_text().splitlines()]
        said.append([tuple(word) for word in words if word[0] in {"state", "resumed"}])
    assert all(each == said[0] for each in said), said
    return {int(step): digest for _, step, digest in said[0]}, [
        each for each in said[0] if each[0] == "resumed"
    ]


def newest(run):
    return CheckpointStore.of_run(RunPaths(run)).checkpoints()[-1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("sharded") / "run"
    return finish(run)[0], result_of(run)


@pytest.mark.slow
def test_a_drained_run_of_sharded_ranks_equals_an_undisturbed_one(tmp_path, undisturbed):
    run = tmp_path / "run"
    before, _ = drain(run, 7)
    after, resumed = finish(run)
    assert result_of(run) == undisturbed[1]
    assert before | after == undisturbed[0]
    assert resumed == [("resumed", str(max(before)), before[max(before)])]


@pytest.mark.slow
def test_two_one_two_ranks_have_the_same_whole_state_after_each_resume(tmp_path):
    run = tmp_path / "run"
    two, _ = drain(run, 5)
    one, resumed = drain(run, max(two) + 5, world_size=1)
    assert resumed == [("resumed", str(max(two)), two[max(two)])]
    again, resumed = drain(run, max(one) + 3)
    assert resumed == [("resumed", str(max(one)), one[max(one)])]
    _, resumed = finish(
        run, "--plain", "--only-resume", world_size=1
    )  # a model that is not sharded takes it too
    assert resumed == [("resumed", str(max(again)), again[max(again)])]


def test_each_rank_writes_its_part_and_anybody_can_put_them_together(tmp_path):
    run = tmp_path / "run"
    drain(run, 5)
    content = read(newest(run).path)
    shapes = [{name: shape for name, (_, shape, _) in table.items()} for table in content.tensors]
    assert [table["model.0.weight"] for table in shapes] == [(7, 8), (6, 8)]
    wholes = {name: value for name, value in whole_tensors(content).items() if "objects/model/" in name}
    state = model_state(newest(run))
    by_number = list(state.values())
    for name, (dtype, shape, data) in wholes.items():
        tensor = by_number[int(name.split("/")[3])]
        assert (dtype, shape) == ("F32", tuple(tensor.shape))
        assert data == bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    assert len(wholes) == 2  # the last layer has one row, which rank 0 holds
