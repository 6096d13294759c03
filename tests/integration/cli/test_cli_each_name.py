"""A request for several jobs is made for each of them; what is refused is said, and the verb fails."""

from __future__ import annotations

import dataclasses

import pytest

from trainerd.cli import waiting
from trainerd.cli.each_name import EachName
from trainerd.errors import InternalError, UserError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_S", 0.001)


@pytest.mark.parametrize("verb", ["stop", "hold", "retry", "resume", "drain", "restart"])
def test_every_name_is_tried_and_every_refusal_is_printed(trainerd, supervisor, verb):
    for name in ("mnist", "cifar"):
        supervisor.jobs[name] = dataclasses.replace(supervisor.jobs[name], state="stopped")
    result = trainerd(verb, "nothere", "mnist", "../x", "cifar", "mnist", code=1)
    asked = [call[:2] for call in supervisor.calls]
    assert asked == [("hold" if verb == "drain" else verb, name) for name in ("mnist", "cifar")]
    assert [line.partition(":")[0] for line in sorted(result.stdout.splitlines())] == ["cifar", "mnist"]
    assert "refused for 2 of 4 jobs" in result.stderr
    assert "nothere: no job 'nothere'" in result.stderr
    assert "../x: " in result.stderr


def test_stop_waits_for_those_that_were_not_refused(trainerd, trainerd_json, supervisor):
    supervisor.jobs["mnist"] = dataclasses.replace(supervisor.jobs["mnist"], state="stopped")
    assert "nothere" in trainerd("stop", "nothere", "mnist", "--wait", code=1).stderr


def test_drain_of_refused_names_alone_waits_for_no_other_job(trainerd, supervisor):
    assert "nothing was done" in trainerd("drain", "nothere", "nor-this", code=1).stderr
    assert supervisor.calls == []


def test_a_job_that_would_not_start_again_is_not_stopped_by_restart_and_the_others_are(trainerd, supervisor):
    def refuse(name):
        if name == "queue":
            raise UserError(f"{name} would not start again")
        return supervisor.jobs[name]

    supervisor.check_restart = refuse
    supervisor.jobs["mnist"] = dataclasses.replace(supervisor.jobs["mnist"], state="stopped")
    assert "queue would not start again" in trainerd("restart", "queue", "mnist", code=1).stderr
    assert supervisor.calls == [("restart", "mnist", "")]


def test_the_error_of_a_single_name_is_raised_as_it_is():
    error = UserError("refused", hint="do that")

    def refuse(_name):
        raise error

    with pytest.raises(UserError) as caught:
        EachName(("a",)).ask(refuse)
    assert caught.value is error


def test_a_bug_is_not_taken_for_a_refusal():
    def fail(_name):
        raise InternalError("a bug")

    with pytest.raises(InternalError):
        EachName(("a", "b")).ask(fail)
