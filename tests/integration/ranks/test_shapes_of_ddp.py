"""DistributedDataParallel on three ranks and more: a resumed run has the bits of an undisturbed one.

With two ranks it has them in any case, since a + b = b + a.
"""

from __future__ import annotations

import re
import signal

import pytest
import torch

from tests.support.rank_runs import SHAPES_LOOP, Attempt, run_ranks
from tests.support.training_runs import REPOSITORY, result_of
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.training.exporting import model_state

pytestmark = [pytest.mark.torch, pytest.mark.timeout(400)]

LIMIT_S = 100
TABLE = ("apart", "ddp", "buckets", "static", "view", "unused", "powersgd", "zero", "fsdp2")
"""Rows of the table in docs/ranks.md; each cell is two tests, one a signal."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    results = {}

    def result(shape, world_size, *arguments):
        key = (shape, world_size, *arguments)
        if key not in results:
            run = tmp_path_factory.mktemp(shape) / "run"
            finish(run, shape, world_size, *arguments)
            results[key] = result_of(run)
        return results[key]

    return result


def finish(run, shape, world_size, *arguments):
    return run_ranks(run, shape, *arguments, script=SHAPES_LOOP, world_size=world_size, limit_s=LIMIT_S)


def strike(run, shape, world_size, rank, step, signum, *arguments):
    words = (shape, "--strike", rank, step, int(signum), *arguments)
    with Attempt(run, *words, script=SHAPES_LOOP, world_size=world_size) as attempt:
        codes = attempt.wait(LIMIT_S)
    if signum == signal.SIGTERM:
        assert codes == [DRAINED] * world_size, attempt.output
    else:
        assert codes[rank] == -signum, attempt.output
        assert not {0, DRAINED} & set(codes), attempt.output


@pytest.mark.parametrize(
    ("signum", "step"),
    [
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGKILL, 5, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_resume_of_three_ranks_has_the_bits_of_an_undisturbed_run(tmp_path, undisturbed, signum, step):
    run = tmp_path / "run"
    strike(run, "buckets", 3, 1, step, signum)
    whole = finish(run, "buckets", 3)
    assert result_of(run) == undisturbed("buckets", 3)
    assert "may not resume exactly" not in whole.output


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 1, 4])
@pytest.mark.parametrize("shape", ["ddp", "static", "view", "unused", "no-sync", "fp16-hook", "raw", "half"])
def test_every_way_of_wrapping_resumes_exactly(tmp_path, undisturbed, shape, step):
    run = tmp_path / "run"
    strike(run, shape, 3, 1, step, signal.SIGTERM)
    whole = finish(run, shape, 3)
    assert result_of(run) == undisturbed(shape, 3)
    assert "may not resume exactly" not in whole.output


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=str)
@pytest.mark.parametrize("shape", ["zero-inner", "local-sgd"])
def test_the_state_of_wrappers_is_resumed(tmp_path, undisturbed, shape, signum):
    run = tmp_path / "run"
    strike(run, shape, 3, 1, 6, signum)
    whole = finish(run, shape, 3)
    assert result_of(run) == undisturbed(shape, 3)
    assert "may not resume exactly" not in whole.output


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("shape", TABLE)
def test_a_disturbed_run_equals_an_undisturbed_one(tmp_path, undisturbed, shape, world_size, signum):
    run = tmp_path / "run"
    strike(run, shape, world_size, 1, 5, signum)
    whole = finish(run, shape, world_size)
    assert result_of(run) == undisturbed(shape, world_size)
    assert "may not resume exactly" not in whole.output


def test_the_table_in_the_documents_has_the_cells_that_are_tested():
    text = (REPOSITORY / "docs" / "ranks.md").read_text()
    rows = re.findall(r"^\| .*`([a-z0-9-]+)` \| equal \| equal \| equal \|$", text, re.MULTILINE)
    assert rows == list(TABLE)


def test_uneven_inputs_are_refused_before_the_first_step(tmp_path):
    with Attempt(tmp_path / "run", "join", "--strike", 1, 0, 15, script=SHAPES_LOOP, world_size=2) as attempt:
        assert attempt.wait(LIMIT_S) == [1, 1], attempt.output
    assert attempt.output.count("error: uneven inputs") == 2
    assert "strikes" not in attempt.output  # before the body of a step


@pytest.mark.slow
@pytest.mark.parametrize("now", [1, 2])
def test_a_zero_optimizer_does_not_go_on_with_other_ranks_and_says_with_how_many(tmp_path, now):
    run = tmp_path / "run"
    strike(run, "zero", 3, 1, 5, signal.SIGTERM)
    with Attempt(run, "zero", script=SHAPES_LOOP, world_size=now) as attempt:
        assert attempt.wait(LIMIT_S) == [1] * now, attempt.output
    assert attempt.output.count("go on with 3 ranks") == now
    finish(run, "zero", 3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["fsdp2-tp"])
def test_sharded_ranks_resume_exactly(tmp_path, undisturbed, shape):
    run = tmp_path / "run"
    strike(run, shape, 4, 1, 5, signal.SIGTERM)
    finish(run, shape, 4)
    assert result_of(run) == undisturbed(shape, 4)
    whole = torch.load(run / "whole.pt")
    put_together = model_state(CheckpointStore.of_run(RunPaths(run)).checkpoints()[-1])
    for name in ("0.weight", "0.bias", "2.weight"):  # the others have replicas
        assert put_together[name].tolist() == whole[name].tolist()


def test_a_model_wrapped_after_the_resume_is_said_to_be_suspect(tmp_path):
    run = tmp_path / "run"
    strike(run, "late", 3, 1, 3, signal.SIGTERM)
    whole = finish(run, "late", 3)
    assert "may not resume exactly: DistributedDataParallel of model." in whole.output
    assert "make the DistributedDataParallel before session.resume()" in whole.output
