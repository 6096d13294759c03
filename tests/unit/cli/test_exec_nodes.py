"""`trainerd exec` of several nodes: what is missing or contradicts itself is refused, and nothing is made."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from trainerd.cli.exec_ import command
from trainerd.contract import exit_codes

SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NODEID": "1",
}
PLACE = ["--nnodes", "2", "--node-rank", "1", "--rendezvous", "n1:29400"]


def invoke(folder, *words, environ=None, **fields):
    spec = folder / "ant.json"
    spec.write_text(json.dumps({"command": ["true"], **fields}))
    return CliRunner(env=environ or {}).invoke(command, [str(spec), "--state", str(folder / "s"), *words])


@pytest.mark.parametrize(
    ("environ", "words", "fields", "said", "remedy"),
    [
        (SRUN, [], {}, "this is node 1 of 2, and they have no run folder in common", "--run DIR"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "4"}, ["--run", "r"], {}, "4 tasks", "--ntasks-per-node=1"),
        ({"SLURM_JOB_NUM_NODES": "2"}, [], {}, "Slurm has given this job 2 nodes", "--nnodes 1"),
        ({}, PLACE, {}, "no run folder in common", "--run DIR"),
        ({}, ["--nnodes", "2", "--run", "r"], {}, "where the ranks of all nodes meet", "--rendezvous"),
        ({}, ["--run", "r"], {}, "this job has one", "--nnodes"),
        ({}, ["--meet-within", "1m"], {}, "this job has one", "--nnodes"),
        ({}, [*PLACE, "--run", "r", "--fresh"], {}, "--fresh is for one node", "another folder with --run"),
        ({}, [*PLACE, "--run", "r"], {"on_nonfinite_loss": "rollback"}, "rollback is for one node", "stop"),
    ],
)
def test_what_would_train_apart_or_half_is_refused_with_the_remedy(
    tmp_path, environ, words, fields, said, remedy
):
    result = invoke(tmp_path, *words, environ=environ, **fields)
    assert result.exit_code == exit_codes.NEVER_RETRY, result.output
    assert said in result.output
    assert remedy in result.output
    assert not (tmp_path / "s").exists(), "nothing was made"


def test_a_limit_that_is_none_is_refused(tmp_path):
    result = invoke(tmp_path, *PLACE, "--run", "r", "--meet-within", "0s")
    assert result.exit_code != 0
    assert "--meet-within" in result.output + str(result.exception)
