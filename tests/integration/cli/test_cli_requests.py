"""hold, drain, retry, reload and resume --all, against a supervisor that is told what to be."""

from __future__ import annotations

import dataclasses

import pytest

from trainerd.cli import waiting


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_S", 0.001)


def test_hold_and_retry_pass_the_request_on(trainerd, supervisor):
    assert trainerd("hold", "mnist").stdout == "mnist: running, held: held until it is resumed\n"
    assert trainerd("retry", "cifar").stdout == "cifar: queued: tried again on request\n"
    assert supervisor.calls == [("hold", "mnist"), ("retry", "cifar")]


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
    assert trainerd("reload").stdout == "trainerd 1.2.3 (process 99) has begun anew; no job was disturbed\n"
    assert supervisor.calls == [("reload",)]


def test_a_refused_reload_says_why_and_fails(trainerd, supervisor, monkeypatch):
    async def refuse():
        supervisor.daemon_view = dataclasses.replace(
            supervisor.daemon_view, reload_refused_wall_s=7.0, reload_refusal="trainerd.toml:1: limits: oh no"
        )

    monkeypatch.setattr(supervisor, "reload", refuse)
    assert "the reload was refused: trainerd.toml:1: limits: oh no" in trainerd("reload", code=1).stderr
