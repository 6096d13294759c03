"""hold, drain, retry, reload and resume --all, against a supervisor that is told what to be."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import pytest

from tests.support.checkpoints import commit, names
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli import waiting
from trainerd.contract.request_page import RequestPage
from trainerd.errors import TryAgainError, UserError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_S", 0.001)


def test_hold_and_retry_pass_the_request_on(trainerd, supervisor):
    assert trainerd("hold", "mnist").stdout == "mnist: running, held: held until it is resumed\n"
    assert trainerd("retry", "cifar").stdout == "cifar: queued: tried again on request\n"
    assert supervisor.calls == [("hold", "mnist"), ("retry", "cifar")]


@pytest.mark.usefixtures("supervisor")
def test_a_checkpoint_that_was_asked_for_is_durable_only_if_it_is_a_new_one(trainerd, state):
    store = CheckpointStore.of_run(state.run("mnist"))
    attempt = state.run("mnist").attempt(2)
    attempt.root.mkdir(parents=True)
    with store.lock(), closing(RequestPage(attempt.requests)):
        commit(store, 100)
        said = trainerd("checkpoint", "mnist", "--wait", "0.01", code=1).stderr
    assert "mnist was asked, and has not saved within 0.01 s" in said


def test_drain_without_a_name_holds_everything_and_waits_until_nothing_runs(trainerd, supervisor):
    looks = []
    listed = supervisor.list_jobs

    def list_jobs():
        looks.append(1)
        state = "draining" if len(looks) < 4 else "queued"
        supervisor.jobs["mnist"] = dataclasses.replace(supervisor.jobs["mnist"], state=state)
        return listed()

    supervisor.list_jobs = list_jobs
    result = trainerd("drain")
    assert result.stdout == "no job runs; nothing is started until `trainerd resume --all`\n"
    assert "mnist: draining" in result.stderr
    assert supervisor.calls == [("hold_all",)]
    assert "starts nothing" in trainerd("status").stdout


def test_drain_with_names_holds_these_alone(trainerd, trainerd_json, supervisor):
    assert trainerd("drain", "mnist", "--no-wait").stdout.startswith("mnist: running: held until")
    assert [one["name"] for one in trainerd_json("drain", "queue")] == ["queue"]
    assert supervisor.calls == [("hold", "mnist"), ("hold", "queue")]


def test_resume_all_releases_the_supervisor_and_needs_no_name(trainerd, supervisor):
    trainerd("resume", "--all")
    assert supervisor.calls == [("release_all",)]
    trainerd("resume", code=2)
    trainerd("resume", "mnist", "--all", code=2)


def test_reload_returns_when_the_supervisor_has_begun_anew(trainerd, supervisor):
    assert (
        trainerd("reload").stdout == "trainerd 1.2.3 (process 99) has started again; no job was disturbed\n"
    )
    assert supervisor.calls == [("reload",)]


def test_a_refused_reload_says_why_and_fails(trainerd, supervisor, monkeypatch):
    async def refuse():
        supervisor.daemon_view = dataclasses.replace(
            supervisor.daemon_view, reload_refused_wall_s=7.0, reload_refusal="trainerd.toml:1: limits: oh no"
        )

    monkeypatch.setattr(supervisor, "reload", refuse)
    assert "the reload was refused: trainerd.toml:1: limits: oh no" in trainerd("reload", code=1).stderr


def test_restart_stops_what_runs_and_starts_it_and_what_is_complete_again(trainerd, supervisor):
    supervisor.jobs["mnist"] = dataclasses.replace(supervisor.jobs["mnist"], state="finished")
    assert trainerd("restart", "mnist").stdout == "mnist: queued: restarted on request\n"
    trainerd("restart", "queue")
    assert supervisor.calls == [("restart", "mnist", ""), ("stop", "queue"), ("restart", "queue", "")]


def test_a_fresh_restart_moves_the_run_aside_before_it_asks(trainerd, supervisor, state):
    run = state.run("cifar")
    run.root.mkdir(parents=True)
    run.metrics.write_text("old")
    told = trainerd("restart", "cifar", "--fresh")
    assert told.stderr.endswith("\ncifar: the old run is kept in .trainerd/runs/cifar.old-1\n")
    assert supervisor.calls == [("restart", "cifar", "fresh")]
    assert state.run("cifar.old-1").metrics.read_text() == "old"
    assert "no checkpoint yet" in trainerd("checkpoints", "cifar.old-1").stdout
    assert "there is no old run" in trainerd("restart", "cifar", "--fresh").stderr


def test_a_restart_that_would_be_refused_stops_and_moves_nothing(trainerd, supervisor, state):
    supervisor.jobs["cifar"] = dataclasses.replace(supervisor.jobs["cifar"], state="rejected")
    for name in ("mnist", "cifar"):
        state.run(name).root.mkdir(parents=True)
        state.run(name).metrics.write_text("old")
    assert "its spec is refused" in trainerd("restart", "mnist", "cifar", "--fresh", code=1).stderr
    assert supervisor.calls == []
    assert state.run("mnist").metrics.read_text() == "old" == state.run("cifar").metrics.read_text()


def test_a_run_is_given_back_if_the_restart_is_refused_after_the_move(
    trainerd, supervisor, state, monkeypatch
):
    async def refuse(name, *, is_fresh):
        raise UserError(f"cannot restart {name!r}: its spec is refused")

    monkeypatch.setattr(supervisor, "restart", refuse)
    run = state.run("cifar")
    run.root.mkdir(parents=True)
    run.metrics.write_text("old")
    told = trainerd("restart", "cifar", "--fresh", code=1).stderr
    assert "its spec is refused" in told
    assert "cifar as before" in told
    assert run.metrics.read_text() == "old"
    assert not state.run("cifar.old-1").root.exists()


def test_the_old_run_stays_aside_if_the_answer_is_lost_and_a_new_one_may_have_begun(
    trainerd, supervisor, state, monkeypatch
):
    async def grant_and_fail(name, *, is_fresh):
        supervisor.jobs[name] = dataclasses.replace(supervisor.jobs[name], state="queued")
        raise TryAgainError("the journal is full")

    monkeypatch.setattr(supervisor, "restart", grant_and_fail)
    run = state.run("cifar")
    run.root.mkdir(parents=True)
    run.metrics.write_text("old")
    told = trainerd("restart", "cifar", "--fresh", code=1).stderr
    assert "(the old run is kept in .trainerd/runs/cifar.old-1)" in told
    assert state.run("cifar.old-1").metrics.read_text() == "old"
    assert not run.root.exists()


def test_resume_from_undoes_itself_and_starts_a_complete_job_again(trainerd, supervisor, state):
    supervisor.jobs["mnist"] = dataclasses.replace(supervisor.jobs["mnist"], state="finished")
    store = CheckpointStore.of_run(state.run("mnist"))
    with store.lock():
        for step in (1, 2, 3):
            commit(store, step)
    went = trainerd("resume", "mnist", "--from", 1).stderr.splitlines()
    assert went[0] == "mnist: goes on from step-000000001; set aside: step-000000002, step-000000003"
    assert went[1] == "mnist: to undo that: trainerd resume mnist --from step-000000003"
    supervisor.jobs["mnist"] = dataclasses.replace(supervisor.jobs["mnist"], state="parked")
    back = trainerd("resume", "mnist", "--from", "step-000000003").stderr.splitlines()
    assert back == ["mnist: goes on from step-000000003; set aside: nothing"]
    assert names(store) == ["step-000000001", "step-000000002", "step-000000003"]
    assert supervisor.calls == [("restart", "mnist", ""), ("resume", "mnist")]
    trainerd("resume", "mnist", "--from", 2)
    assert "set aside: step-000000003" in trainerd("resume", "mnist", "--from", 9, code=1).stderr
