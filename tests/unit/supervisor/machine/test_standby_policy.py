"""Which jobs get a standby, when, and when they lose it."""

from dataclasses import replace

import pytest

from tests.support.supervisor_objects import spec as make_spec
from trainerd.contract.policy import Resources
from trainerd.shim.warm_command import why_not
from trainerd.supervisor.machine.standby_policy import (
    PREPARE_AFTER_S,
    REST_LIMIT_S,
    StandbyState,
    choose,
    why_no_room,
)
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    Finished,
    Job,
    Parked,
    Queued,
    Rejected,
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
    assert act(job(state), ready(attempt + 1)).act == "release"
    assert act(job(state), ready(attempt, "another spec")).act == "release"


def test_one_becomes_the_spare_when_the_job_ends():
    assert act(job(Finished("v1")), ready()).act == "release"
    assert act(job(Finished("v1")), replace(ready(), phase="preparing")).act == "dismiss"
    assert act(job(Finished("v1")), ready(), is_stopping=True).act == "dismiss"
    assert act(job(Finished("v1"))).act == "none"


@pytest.mark.parametrize(
    "state", [Stopped(), Parked(), Rejected("program")], ids=["stopped", "parked", "rejected"]
)
def test_one_is_kept_for_a_while_for_a_user_who_tries_a_change(state):
    """And none is prepared meanwhile."""
    assert act(job(Draining()), ready()).act == "none"
    assert act(job(state), ready(), after_s=REST_LIMIT_S - 1.0).act == "none"
    assert act(job(state), ready(), after_s=REST_LIMIT_S - 1.0).words == "ready: 200 MB"
    assert act(job(state), ready(), after_s=REST_LIMIT_S).act == "dismiss"
    assert act(job(state), after_s=1.0).act == "none"
    assert act(job(state, is_held=True), ready(), after_s=1.0).act == "dismiss"
    assert act(job(state), ready(digest="of another spec"), after_s=1.0).act == "release"


GIB = 1024**3


def limited(name, memory_gib, state=None):
    resources = Resources(memory_bytes=memory_gib * GIB if memory_gib else None)
    return replace(job(state), name=name, spec=replace(make_spec(standby="auto"), resources=resources))


def no_room(subject, *others, with_standby=(), memory_gib=8):
    memory_bytes = None if memory_gib is None else memory_gib * GIB
    return why_no_room(
        subject, [subject, *others], with_standby, memory_bytes=memory_bytes, waiting_bytes=GIB
    )


def test_a_standby_of_a_job_with_a_limit_counts_beside_what_jobs_occupy():
    ant, bee, fly = limited("ant", 4), limited("bee", 3), limited("fly", 4)
    assert no_room(ant, bee) is None, "4 + 3 of the jobs, and 1 of the standby"
    assert no_room(ant, fly) == ("it may hold 1.0 GiB, and jobs and other standbys have 8.0 of 8.0 GiB")
    assert no_room(ant, replace(fly, state=Queued())) is None, "one that waits occupies nothing"
    assert no_room(ant, bee, with_standby={"bee"}), "that of another job counts too"
    assert no_room(ant, bee, with_standby={"ant"}) is None, "its own does not count twice"
    assert no_room(ant, fly, memory_gib=None) is None


def test_a_job_without_a_limit_occupies_no_memory_and_neither_does_its_standby():
    assert no_room(limited("ant", None), limited("bee", 8)) is None
    assert no_room(limited("bee", 4), limited("ant", None), with_standby={"ant"}, memory_gib=5) is None


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
    assert act(job(), ready(9)).words == "none: it was prepared for something else"
    assert act(job()).words == "being prepared"
    assert act(job(Draining())).words == "none while the job is draining"
    assert act(job(Finished("v1"))).words == "none while the job is finished"


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
        ("python train.py", {"environ": {"PYTHONINSPECT": "1"}}, "PYTHONINSPECT is set"),
        ("python -u -m train --lr 1", {}, None),
    ],
    ids=str,
)
def test_why_a_command_can_have_none_is_said(command, more, said):
    asked = {"environ": {}, "is_group": False} | more
    assert why_not(command.split(), asked.pop("environ"), **asked) == said
