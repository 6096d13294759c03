"""Submitting: checked, copied, acknowledged."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from tests.support.fake_control import job
from trainerd.cli import drill, submit, waiting
from trainerd.contract.drill_record import read_drilled
from trainerd.drill.drill_report import DrillReport, FaultResult
from trainerd.supervisor.specs.load import load_spec


@pytest.fixture
def spec(tmp_path):
    def write(name: str, **fields):
        path = tmp_path / "mine" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"command": ["true"], **fields}))
        return path

    return write


@pytest.fixture
def accepting(supervisor, jobs_dir):
    """A supervisor that knows, after a rescan, what lies in its jobs folder."""

    supervisor.on_rescan = lambda: accept_all(supervisor, jobs_dir)
    return supervisor


def accept_all(supervisor, jobs_dir, state: str = "queued", reason: str = "waits for its turn") -> None:
    for path in jobs_dir.glob("*.yaml"):
        digest = load_spec(path, trust=None).spec_digest
        supervisor.jobs[path.stem] = job(path.stem, state, reason=reason, spec_digest=digest)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(submit, "POLL_S", 0.001)
    monkeypatch.setattr(waiting, "POLL_S", 0.001)


def test_a_spec_is_copied_and_the_answer_says_what_became_of_it(trainerd, accepting, spec, jobs_dir):
    result = trainerd("submit", spec("one.yaml"), spec("two.yaml"))
    assert result.stdout == "one: queued: waits for its turn\ntwo: queued: waits for its turn\n"
    assert sorted(path.name for path in jobs_dir.iterdir()) == ["one.yaml", "two.yaml"]
    assert set(accepting.calls) == {("rescan",)}


@pytest.mark.usefixtures("accepting")
def test_submit_as_json_gives_the_jobs(trainerd_json, spec):
    assert [one["name"] for one in trainerd_json("submit", spec("one.yaml"))] == ["one"]


@pytest.mark.usefixtures("accepting")
def test_nothing_is_copied_if_one_spec_is_wrong(trainerd, spec, jobs_dir):
    result = trainerd("submit", spec("one.yaml"), spec("two.yaml", comand="x"), code=1)
    assert "did you mean 'command'" in result.stderr
    assert list(jobs_dir.iterdir()) == []


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize("second", ["exact", "different", "unchecked"])
def test_nothing_is_submitted_unless_all_drills_are_exact(
    trainerd, spec, state, jobs_dir, monkeypatch, second
):
    verdicts = iter(["exact", second])

    def drill_job(drilled, **_options):
        verdict = next(verdicts)
        struck = FaultResult("kill", "SIGKILL", "not-run" if verdict == "unchecked" else verdict)
        faults = (FaultResult("undisturbed", "", "exact"), struck)
        return DrillReport(drilled.command, verdict, faults, 3, "all", 1.0, 1.0)

    monkeypatch.setattr(drill, "drill_job", drill_job)
    files = [spec("one.yaml"), spec("two.yaml")]
    result = trainerd("submit", *files, "--drill", code=0 if second == "exact" else 1)
    placed = sorted(path.name for path in jobs_dir.iterdir())
    if second == "exact":
        assert placed == ["one.yaml", "two.yaml"]
    else:
        assert f"{files[1]}: the drill is not exact: nothing was submitted" in result.stderr
        assert placed == []
    trainerd("submit", files[1], "--replace")
    placed_digest = load_spec(jobs_dir / "two.yaml", trust=None).spec_digest
    record = read_drilled(state.drill("two"))
    assert (record.verdict, record.spec_digest) == (second, placed_digest)


@pytest.mark.usefixtures("accepting")
def test_a_job_that_exists_is_replaced_only_when_asked(trainerd, spec):
    path = spec("one.yaml")
    trainerd("submit", path)
    assert "--replace" in trainerd("submit", path, code=1).stderr
    trainerd("submit", path, "--replace")


def test_the_answer_is_about_the_new_spec_even_if_it_is_read_late(trainerd, accepting, spec, jobs_dir):
    """A file that was just written has to settle: the first looks still see the old one."""
    trainerd("submit", spec("one.yaml"))
    accepting.jobs["one"] = dataclasses.replace(
        accepting.jobs["one"], state="rejected", reason="the old spec"
    )
    looks = iter(range(100))
    accepting.on_rescan = lambda: next(looks) < 3 or accept_all(accepting, jobs_dir)
    result = trainerd("submit", spec("one.yaml", priority=1), "--replace")
    assert result.stdout == "one: queued: waits for its turn\n"


def test_a_spec_that_the_supervisor_refuses_for_another_reason_is_rejected(
    trainerd, accepting, spec, monkeypatch
):
    monkeypatch.setattr(submit, "REFUSAL_S", 0.0)
    accepting.on_rescan = lambda: accepting.jobs.update(one=job("one", "rejected", reason="not trusted"))
    assert trainerd("submit", spec("one.yaml"), code=1).stdout == "one: rejected: not trusted\n"


def test_a_spec_that_nobody_takes_note_of_is_an_error(trainerd, accepting, spec, monkeypatch):
    monkeypatch.setattr(submit, "ACKNOWLEDGEMENT_LIMIT_S", 0.0)
    accepting.on_rescan = lambda: None
    assert (
        "is in place, but the supervisor has not accepted it"
        in trainerd("submit", spec("one.yaml"), code=1).stderr
    )


def test_a_rejected_job_is_an_error(trainerd, accepting, spec, jobs_dir):
    accepting.on_rescan = lambda: accept_all(accepting, jobs_dir, "rejected", "no such program")
    assert trainerd("submit", spec("one.yaml"), code=1).stdout == "one: rejected: no such program\n"


@pytest.mark.parametrize(("ending", "code"), [("finished", 0), ("parked", 1), ("stopped", 1)])
def test_waiting_ends_with_how_the_job_ended(trainerd, accepting, spec, ending, code):
    look, states = accepting.get_job, iter(["running", "running", ending, ending])

    def get_job(name):
        accepting.jobs[name] = dataclasses.replace(look(name), state=next(states))
        return accepting.jobs[name]

    accepting.get_job = get_job
    result = trainerd("submit", spec("one.yaml"), "--wait", code=code)
    assert result.stderr.splitlines()[-1].startswith(f"one: {ending}")
