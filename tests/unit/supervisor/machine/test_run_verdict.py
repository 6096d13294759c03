"""A run folder and an exit code have one of four answers, whatever they are."""

from __future__ import annotations

import itertools
from typing import get_args, get_type_hints

import pytest

from trainerd.contract.records import ExitRecord, NodeEndRecord, OutcomeRecord, RankExit
from trainerd.supervisor.machine.nodes_verdict import NodesSeen
from trainerd.supervisor.machine.outcome import Evidence
from trainerd.supervisor.machine.run_verdict import EXIT_CODES, RunSeen, judge_run

KINDS = get_args(get_type_hints(OutcomeRecord)["kind"])
CODES = (None, 0, 1, 2, 85, 93, 126, 127, 128, 137, 138, 143, 255, -9, -15, -64)
CHECKPOINTS = {"checkpoint": "step-5", "checkpoint_step": 5, "is_checkpoint_new": True, "step": 5}


def said(*kinds, **known):
    outcomes = tuple(None if kind is None else OutcomeRecord(kind) for kind in kinds)
    return Evidence(
        attempt=1, exit=None, outcomes=outcomes, has_session=True, has_stepped=True, is_wrapped=True, **known
    )


def word(**seen):
    return judge_run(RunSeen(**seen), now_wall_s=1.0).word.value


def test_there_is_an_answer_for_every_folder_and_code():
    shim = ExitRecord((RankExit(0, exit_code=1),), 0.0, 1.0, 1.0, "b")
    evidences = [None, said(), Evidence(attempt=1, exit=shim), Evidence(attempt=1, exit=None)]
    pairs = itertools.product((None, *KINDS), repeat=2)
    evidences += [said(*pair, **known) for pair in pairs for known in ({}, CHECKPOINTS)]
    flags = list(itertools.product((False, True), repeat=3))
    for evidence, code, (finished, live, supervised), fruitless in itertools.product(
        evidences, CODES, flags, (0, 9)
    ):
        verdict = judge_run(RunSeen(code, finished, live, supervised, evidence, fruitless), now_wall_s=1.0)
        assert verdict.exit_code == EXIT_CODES[verdict.word]
        assert verdict.reason
        if verdict.word.value == "finished" and not finished and not supervised:
            kinds = {each and each.kind for each in evidence.outcomes}
            assert "finished" in kinds, "nothing else proves it"


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        ({"is_finished": True, "code": 1}, "finished"),
        ({"evidence": said("finished", "finished"), "code": 1}, "finished"),
        ({"evidence": said("drained", "drained", **CHECKPOINTS), "code": 1}, "again"),
        ({"evidence": said("drained", **CHECKPOINTS)}, "again"),
        ({"evidence": said("exception"), "code": 1, "fruitless": 4}, "again"),
        ({"evidence": said("exception"), "code": 1, "fruitless": 5}, "failed"),
        ({"evidence": said("exception"), "code": 0}, "again"),
        ({"evidence": said("mismatch"), "code": 1}, "never"),
        ({"evidence": said("fenced"), "code": 1}, "failed"),
        ({"evidence": said("nonfinite-loss"), "code": 1}, "failed"),
        ({"evidence": said(None), "code": 137}, "again"),
        ({"evidence": said(None), "code": -9}, "again"),
        ({"evidence": said(None), "code": 0}, "again"),
        ({"evidence": said(None)}, "again"),
        ({"evidence": said(None), "code": 93}, "never"),
        ({"evidence": said(None), "is_live": True, "code": 1}, "again"),
        ({"evidence": said(None), "is_supervised": True, "code": 85}, "again"),
        ({"evidence": said(None), "is_supervised": True, "code": 1}, "failed"),
        ({"evidence": said(None), "is_supervised": True, "code": 0}, "finished"),
        ({}, "again"),
        ({"code": 0}, "failed"),
        ({"code": 1}, "failed"),
        ({"code": 2}, "never"),
        ({"code": 127}, "never"),
        ({"code": 143}, "again"),
        ({"code": 138}, "again"),
        ({"code": 137}, "failed"),
        ({"code": 85}, "again"),
    ],
)
def test_what_is_proven_decides(seen, answer):
    assert word(**seen) == answer


def test_where_no_code_is_known_a_rank_that_failed_is_not_said_to_have_exited_with_0():
    verdict = judge_run(RunSeen(evidence=said("finished", "exception")), now_wall_s=1.0)
    assert "exited with 0" not in verdict.reason


@pytest.mark.parametrize(
    ("ends", "code", "answer"),
    [
        ((), None, "again"),
        ((), 0, "failed"),
        ((), 1, "failed"),
        ((), 2, "never"),
        ((), 85, "again"),
        ((), 93, "never"),
        ((), 137, "again"),
        ((85,), None, "again"),
        ((85,), 1, "again"),
        ((85, 1), None, "failed"),
        ((1, 93), None, "never"),
        ((85, 85), 0, "again"),
        ((7,), None, "again"),
    ],
)
@pytest.mark.parametrize("has_met", [True, False])
def test_what_a_node_said_decides_for_all_and_else_the_code(ends, code, answer, has_met):
    said_by = tuple(NodeEndRecord(node, end, "why", "m") for node, end in enumerate(ends))
    seen = RunSeen(code, nodes=NodesSeen(said_by, has_met), fruitless=9)
    verdict = judge_run(seen, now_wall_s=1.0)
    assert (verdict.word.value, bool(verdict.reason)) == (answer, True)
    assert judge_run(RunSeen(code, is_finished=True, nodes=seen.nodes), now_wall_s=1.0).exit_code == 0
