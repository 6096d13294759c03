"""Which node this is, for each engine and for flags; what contradicts itself is refused with the remedy."""

from __future__ import annotations

import pytest

from trainerd.contract.node_place import Place, first_host, place_of, refuse_as_one_of_many
from trainerd.errors import UserError

SRUN = {
    "SLURM_JOB_ID": "41234",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NODEID": "1",
}
BATCH = {name: value for name, value in SRUN.items() if "STEP" not in name} | {"SLURM_NODEID": "0"}
INDEXED = {"JOB_COMPLETION_INDEX": "1"}


def test_without_an_engine_and_without_flags_there_is_one_node():
    assert place_of({}) is None
    assert place_of({}, nodes=1) is None
    assert place_of({}, nodes=1, node=0) is None


def test_flags_alone_say_all():
    assert place_of({}, nodes=3, node=2, rendezvous="a:1") == Place(3, 2, "a", 1)
    assert place_of({}, nodes=2, node=0, rendezvous="[fe80::1]:29400") == Place(2, 0, "fe80::1", 29400)


def test_srun_says_all():
    assert place_of(SRUN) == Place(2, 1, "n1", 10_000 + 1234)
    assert place_of(SRUN, rendezvous="n1:5") == Place(2, 1, "n1", 5)
    assert place_of(SRUN, nodes=2, node=1) == place_of(SRUN)
    one = SRUN | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NODEID": "0"}
    assert place_of(one) is None


def test_an_indexed_job_says_which_node_and_no_more():
    assert place_of(INDEXED, nodes=2, rendezvous="mnist-0.mnist:29400") == Place(2, 1, "mnist-0.mnist", 29400)
    assert place_of(INDEXED) is None, "each index may be a job of its own"


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        (BATCH, {}, "Slurm has given this job 2 nodes, and this is started on one"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "8"}, {}, "srun has started 8 tasks on 2"),
        (SRUN, {"nodes": 3}, "--nnodes 3, and srun has started 2 tasks on 2"),
        (SRUN, {"node": 0}, "--node-rank 0, and SLURM_NODEID=1"),
        (SRUN | {"SLURM_NODEID": "x"}, {}, "SLURM_NODEID='x' is not a number"),
        (INDEXED, {"nodes": 2, "node": 0, "rendezvous": "a:1"}, "JOB_COMPLETION_INDEX=1"),
        ({"JOB_COMPLETION_INDEX": "2"}, {"nodes": 2, "rendezvous": "a:1"}, "JOB_COMPLETION_INDEX 2 is out"),
        (INDEXED, {"nodes": 2}, "not known where the ranks of all nodes meet"),
        ({}, {"nodes": 2, "rendezvous": "a:1"}, "which node this is is not known"),
        ({}, {"nodes": 2, "node": 2, "rendezvous": "a:1"}, "--node-rank 2 is out of range"),
        ({}, {"node": 1}, "--nnodes is missing"),
        ({}, {"rendezvous": "a:1"}, "--nnodes is missing"),
        *[
            ({}, {"nodes": 2, "node": 0, "rendezvous": text}, "is not HOST:PORT")
            for text in ("a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:¹", "")
        ],
    ],
)
def test_what_contradicts_itself_is_refused(environ, flags, words):
    with pytest.raises(UserError) as refused:
        place_of(environ, **flags)
    assert words in str(refused.value)


def test_one_node_of_a_larger_allocation_is_used_if_the_user_says_so():
    assert place_of(BATCH, nodes=1) is None
    assert place_of(SRUN | {"SLURM_STEP_NUM_TASKS": "8"}, nodes=1) is None


@pytest.mark.parametrize(
    ("node_list", "host"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[1-2]", "n1"),
        ("gpu[07-09,12],login1", "gpu07"),
        ("r[3,5]n[0-3]-ib,x", "r3n0-ib"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(node_list, host):
    assert first_host(node_list) == host


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_program_that_was_started_several_times_and_takes_itself_for_the_only_rank_is_refused(name):
    with pytest.raises(UserError, match=f"{name}=2: 2 processes were started, and each would train alone"):
        refuse_as_one_of_many({name: "2"})
    refuse_as_one_of_many({name: "2", "WORLD_SIZE": "1"})
    refuse_as_one_of_many({name: "1"})
    refuse_as_one_of_many({name: "2", "SLURM_JOB_NAME": "interactive"})
