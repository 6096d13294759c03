"""Which jobs get a standby, when, and when they lose it."""

from dataclasses import replace

import pytest

from tests.support.supervisor_objects import spec as make_spec
from trainerd.shim.warm_command import why_not
from trainerd.supervisor.machine.standby_policy import PREPARE_AFTER_S, StandbyState, choose
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    Finished,
    Job,
    Queued,
    Running,
    Starting,
    Stopped,
)

SINCE_S = 1000.0


def job(state=None, *, standby="auto", **changes):
    spec = make_spec(standby=standby)
    return Job(
        name="ant", spec=spec, state=state or Running(), reason="", since_wall_s=SINCE_S, attempt=3,
        attempt_digest=spec.spec_digest, **changes,
    )  # fmt: skip


def act(subject, standby=None, *, refusal=None, has_note=True, after_s=60.0, is_stopping=False):
    return choose(
        subject,
        standby,
        refusal=refusal,
        has_note=has_note,
        now_wall_s=SINCE_S + after_s,
        is_stopping=is_stopping,
    )


def ready(attempt=4, digest=None):
    return StandbyState(attempt, digest or job().spec.spec_digest, "ready", "200 MB")


def test_one_is_prepared_once_the_attempt_has_run_for_a_while_and_has_noted_what_it_imports():
    assert act(job(), after_s=PREPARE_AFTER_S - 0.1).act == "none"
    assert act(job(), has_note=False).act == "none"
    assert act(job(), after_s=PREPARE_AFTER_S).act == "prepare"
    assert act(job(Running(is_stalled=True))).act == "none"


def test_none_is_prepared_unless_the_spec_asks_for_it_and_the_reason_is_told_where_it_cannot_be():
    assert act(job(standby="off")) == act(job(standby="off"), has_note=False)
    assert act(job(standby="off")).words is None
    assert act(job(standby="off"), ready()).act == "dismiss"
    refused = act(job(), ready(), refusal="the command runs 'sh', not a Python interpreter")
    assert refused.act == "dismiss"
    assert "'sh'" in refused.words


@pytest.mark.parametrize(
    ("state", "attempt"),
    [(Running(), 4), (Queued(), 4), (BackingOff(1.0, 2000.0), 4), (Starting(), 3)],
    ids=["running", "queued", "backing-off", "starting"],
)
def test_one_is_kept_while_the_job_runs_or_waits_to_be_started_by_itself(state, attempt):
    assert act(job(state), ready(attempt)).act == "none"
    assert act(job(state), ready(attempt)).words == "ready: 200 MB"
    assert act(job(state), ready(attempt + 1)).act == "dismiss"
    assert act(job(state), ready(attempt, "another spec")).act == "dismiss"


@pytest.mark.parametrize(
    "state", [Draining(), Finished("v1"), Stopped()], ids=["draining", "finished", "stopped"]
)
def test_one_is_ended_when_the_job_ends_is_stopped_or_drained(state):
    assert act(job(state), ready()).act == "dismiss"


def test_one_is_ended_when_the_job_is_held_or_the_supervisor_stops():
    assert act(job(is_held=True), ready()).act == "dismiss"
    assert act(job(), ready(), is_stopping=True).act == "dismiss"


def test_one_that_failed_is_not_tried_again_for_the_same_attempt_and_its_reason_is_shown():
    failed = StandbyState(4, job().spec.spec_digest, "failed", "importing its modules starts a thread: wandb")
    assert act(job(), failed).act == "none"
    assert act(job(), failed).words == "none: importing its modules starts a thread: wandb"
    assert act(replace(job(), attempt=4), failed).act == "dismiss", "the next attempt begins without it"


def test_why_none_is_prepared_is_said():
    changed = replace(job(), attempt_digest="of another spec")
    assert act(changed).words == "none: the spec has changed"
    assert act(job(), has_note=False).words == "none: no session of the job has noted what it imports yet"
    assert act(job(), after_s=0.0).words == f"prepared when the attempt has run for {PREPARE_AFTER_S:g} s"
    assert act(job(), ready(9)).words == "ending: it was prepared for something else"
    assert act(job()).words == "being prepared"
    assert act(job(Draining())).words == "none while the job is draining"


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("python -m", {}, "the command has no module"),
        ("python", {}, "the command has no script"),
        ("python -u", {}, "the command has no script"),
        ("python -i train.py", {}, "the command has the option '-i'"),
        ("python -X importtime train.py", {}, "the command has the option '-Ximporttime'"),
        ("bash run.sh", {}, "the command runs 'bash', not a Python interpreter"),
        (
            "python train.py",
            {"is_group": True},
            "the job has ranks, and only a job of one process can have one",
        ),
        (
            "python train.py",
            {"has_memory_limit": True},
            "`resources.memory` is set, and what a standby takes cannot be counted in it",
        ),
        ("python train.py", {"environ": {"PYTHONINSPECT": "1"}}, "PYTHONINSPECT is set"),
        ("python -u -m train --lr 1", {}, None),
    ],
    ids=str,
)
def test_why_a_command_can_have_none_is_said(command, more, said):
    asked = {"environ": {}, "is_group": False, "has_memory_limit": False} | more
    assert why_not(command.split(), asked.pop("environ"), **asked) == said
