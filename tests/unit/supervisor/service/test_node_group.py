"""What the nodes of a job tell one another, and the folder that they share."""

from __future__ import annotations

import pytest

from trainerd.contract import records
from trainerd.contract.node_place import Place
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import FinishedRecord, NodeEndRecord
from trainerd.errors import UserError
from trainerd.supervisor.service.node_group import NodeGroup, OtherNodes, join_common, whole_end

GONE = NodeEndRecord(1, 93, "it cannot run", "a")


def place(node):
    return Place(3, node, "n0", 29400)


@pytest.fixture
def runs(tmp_path):
    """The run folders of three nodes."""
    runs = [RunPaths(tmp_path / f"node-{node}" / "runs" / "ant") for node in range(3)]
    for node, run in enumerate(runs):
        join_common(run, NodeGroup(place(node), tmp_path / "common"))
    return runs


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        ({}, None),
        ({"waited_s": 10.0}, 85),
        ({"other": GONE}, 93),
        ({"other": GONE, "waited_s": 10.0}, 93),
        ({"is_finished": True, "other": GONE, "waited_s": 10.0}, 0),
    ],
)
def test_the_end_of_all_nodes_is_told_from_what_one_of_them_sees(seen, code):
    end = whole_end(**{"is_finished": False, "other": None, "waited_s": 9.9, "limit_s": 10.0} | seen)
    assert (end.code if end is not None else None) == code
    if end is not None:
        assert end.is_not_now == (code == 85)


def test_a_node_hears_of_an_end_that_came_after_its_own_start_and_of_no_other(runs):
    OtherNodes(place(1), runs[1], "v1").say_ended(1, "of an earlier start")
    first = OtherNodes(place(0), runs[0], "v1")
    assert first.ended() is None
    second = OtherNodes(place(1), runs[1], "v1")
    assert first.ended() is None, "that it was started again is no end"
    second.say_ended(1, "of an earlier start")
    heard = first.ended()
    assert heard is not None
    assert (heard.node, heard.code, heard.reason) == (1, 1, "of an earlier start")
    assert second.ended() is None, "what a node says itself is no news to it"


def test_what_another_node_left_and_cannot_be_read_is_no_end(runs):
    first = OtherNodes(place(0), runs[0], "v1")
    runs[0].node_end(2).write_text("{")
    assert first.ended() is None


def test_the_run_is_finished_under_the_same_spec_alone(runs):
    first = OtherNodes(place(0), runs[0], "v1")
    assert not first.is_finished()
    records.write(runs[2].finished, FinishedRecord(9, 1, "step-9", "v2", 1.0))
    assert not first.is_finished()
    records.write(runs[2].finished, FinishedRecord(9, 1, "step-9", "v1", 1.0))
    assert first.is_finished()


def test_nodes_have_the_checkpoints_in_common_and_the_attempts_of_their_own(runs, tmp_path):
    assert {run.checkpoints for run in runs} == {tmp_path / "common" / "checkpoints"}
    assert {run.finished for run in runs} == {tmp_path / "common" / "finished.json"}
    assert {run.metrics for run in runs} == {tmp_path / "common" / "metrics.jsonl"}
    assert len({run.attempts for run in runs}) == len({run.rank_log(0) for run in runs}) == 3
    join_common(runs[0], NodeGroup(place(0), tmp_path / "common"))  # as a later start does


def test_a_folder_of_another_run_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="has shared"):
        join_common(runs[0], NodeGroup(place(0), tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="one node of several"):
        join_common(runs[0], None)
    alone = RunPaths(tmp_path / "alone")
    alone.checkpoints.mkdir(parents=True)
    with pytest.raises(UserError, match="has a run of one node"):
        join_common(alone, NodeGroup(place(0), tmp_path / "common"))
    join_common(alone, None)
    assert alone.common == alone.root


def test_a_shared_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder") as refused:
        join_common(RunPaths(tmp_path / "run"), NodeGroup(place(0), tmp_path / "file" / "run"))
    assert "--run" in str(refused.value)
