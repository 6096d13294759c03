"""The run folder of one node of several: what its ranks are told, and what its endings rest on."""

from __future__ import annotations

import pytest

from tests.support.supervisor_objects import exit_record, spec
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import records
from trainerd.contract.environment import from_environ
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.node_place import Place
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord, RankExit
from trainerd.errors import FencedError
from trainerd.shim.spawn import rank_environment
from trainerd.supervisor.attempt.node_files import NodeRunFiles
from trainerd.supervisor.attempt.run_files import MonitoredAttempt
from trainerd.supervisor.machine.outcome import OutcomeKind, judge


def attempt(run, **fields):
    return MonitoredAttempt(spec(**fields), run, 7, "v1")


def place(node):
    return Place(2, node, "n0", 29400)


def test_ranks_are_numbered_over_all_nodes_and_meet_at_the_first(tmp_path):
    run = RunPaths(tmp_path / "state" / "runs" / "ant")
    run.root.mkdir(parents=True)
    run.common_link.symlink_to(tmp_path / "common")
    found = NodeRunFiles(place(1)).expected(attempt(run, nproc=3), {"MASTER_ADDR": "elsewhere"})
    environ = rank_environment(found, {"MASTER_PORT": "1"}, rank=2, mark="m", master_port=None)
    said = {name: environ[name] for name in environ if not name.startswith(("TRAINERD", "TORCH", "PYTHON"))}
    assert said == {
        "RANK": "5",
        "LOCAL_RANK": "2",
        "WORLD_SIZE": "6",
        "LOCAL_WORLD_SIZE": "3",
        "ROLE_NAME": "default",
        "ROLE_RANK": "5",
        "ROLE_WORLD_SIZE": "6",
        "GROUP_RANK": "1",
        "GROUP_WORLD_SIZE": "2",
        "MASTER_ADDR": "n0",
        "MASTER_PORT": "29400",
    }
    told = from_environ(environ)
    assert (told.rank, told.local_rank, told.world_size, told.node) == (5, 2, 6, 1)
    assert told.rank_in_attempt == 2, "the shim counts its ranks from 0"
    assert told.run_dir == tmp_path / "common"
    assert told.attempt_dir == run.attempt(7).root


def test_one_rank_a_node_is_a_group_too(tmp_path):
    found = NodeRunFiles(place(1)).expected(attempt(RunPaths(tmp_path)), {})
    assert (found.is_group, found.nproc, found.first_rank) == (True, 1, 1)


def ended(tmp_path, node, kind, *, step, resumed_step, checkpoint=None):
    """Return how an attempt is judged whose only rank has said so, on a node that sees no checkpoint."""
    run = RunPaths(tmp_path / "ant")
    paths = run.attempt(7)
    paths.root.mkdir(parents=True)
    writer = HeartbeatWriter(paths.heartbeat(0), furthest_step=0)
    writer.beat(
        Phase.END,
        step=step,
        epoch=0,
        epochs=-1,
        batch=0,
        batches=-1,
        checkpoint_step=-1,
        loss=0.0,
        saves=0,
        resumed_step=resumed_step,
        last_save_s=0.0,
    )
    writer.close()
    records.write(paths.outcome(0), OutcomeRecord(kind, step=step, checkpoint=checkpoint))
    code = {"drained": 85, "finished": 0}[kind]
    evidence = NodeRunFiles(place(node)).evidence(
        attempt(run),
        exit_record(RankExit(0, exit_code=code)),
        lost_because="",
        is_after_reboot=False,
        looks_at_checkpoints=True,
    )
    return judge(evidence, now_wall_s=1.0)


@pytest.mark.parametrize(("step", "resumed_step"), [(12, 5), (5, 5)])
def test_the_second_node_takes_its_ranks_at_their_word_before_it_sees_the_checkpoint(
    tmp_path, step, resumed_step
):
    said = ended(tmp_path, 1, "drained", step=step, resumed_step=resumed_step, checkpoint=f"step-{step}")
    assert (said.kind, said.checkpoint) == (OutcomeKind.DRAINED, f"step-{step}")
    assert not any("could not be looked at" in line for line in said.evidence)


def test_the_first_node_believes_what_it_can_verify(tmp_path):
    said = ended(tmp_path, 0, "drained", step=12, resumed_step=5, checkpoint="step-12")
    assert said.kind is OutcomeKind.CRASHED


def test_the_second_node_is_finished_when_its_ranks_are(tmp_path):
    assert ended(tmp_path, 1, "finished", step=12, resumed_step=5).kind is OutcomeKind.FINISHED


@pytest.mark.parametrize(("node", "is_fenced"), [(0, True), (1, False)])
def test_the_first_node_alone_fences(tmp_path, node, is_fenced):
    """The writer of the checkpoints is rank 0: an attempt of another node that was lost publishes nothing."""
    run = RunPaths(tmp_path / "ant")
    store = CheckpointStore.of_run(run)
    with store.lock():
        store.take_over()
        NodeRunFiles(place(node)).fence(run)
        if is_fenced:
            with pytest.raises(FencedError):
                store.begin(1)
        else:
            store.begin(1)
