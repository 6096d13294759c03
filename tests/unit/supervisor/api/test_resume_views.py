"""The verdict on a job's newest resume, as the interfaces show it."""

import asyncio
import dataclasses

import pytest

from tests.support.fake_control import MNIST
from tests.support.supervisor_objects import job
from trainerd.checkpoint.memory_place import take_place
from trainerd.cli.status import REASONS_SHOWN_MAX, job_lines
from trainerd.contract.paths import StatePaths
from trainerd.contract.resume_record import ResumeRecord, judge, summary, write_resume
from trainerd.contract.verdict import Reason
from trainerd.supervisor.api.control import ReasonView
from trainerd.supervisor.api.recent_attempts import RecentAttempts
from trainerd.supervisor.api.views import resume_reasons
from trainerd.supervisor.ledger import Step
from trainerd.supervisor.machine.job_events import SpecVanished


class NoEndings:
    def last_endings(self):
        return {}


class InPlace:
    async def sweep(self, calls):
        return {key: call() for key, call in calls.items()}


@pytest.fixture
def paths(tmp_path):
    paths = StatePaths(tmp_path)
    paths.run("ant").root.mkdir(parents=True)
    return paths


def observed(paths):
    recent = RecentAttempts(NoEndings(), paths, InPlace())
    asyncio.run(recent.observe({"ant": 1}))
    return recent.last_resume("ant")


def test_the_record_of_the_run_folder_is_what_is_shown(paths):
    record = ResumeRecord(2, "step-000000003", 3, reasons=(Reason("changed-code", "code.x", "changed"),))
    write_resume(paths.run("ant").resume, dataclasses.replace(record, verdict=judge(record)))
    assert observed(paths).verdict == "suspect"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b" " * (2 << 20), b'{"format": 3}'])
def test_a_record_that_cannot_be_read_is_unknown(paths, content):
    paths.run("ant").resume.write_bytes(content)
    assert observed(paths) is None


class RemovesMeanwhile(InPlace):
    """Removes the job while its run folder is read."""

    recent = None

    async def sweep(self, calls):
        seen = await super().sweep(calls)
        if self.recent is not None:
            self.recent.note(Step("ant", SpecVanished(), job(None), None, "removed"))
        return seen


def test_nothing_is_kept_of_a_job_that_goes_while_it_is_observed(paths):
    write_resume(paths.run("ant").resume, ResumeRecord(2, "step-000000003", 3))
    io = RemovesMeanwhile()
    recent = io.recent = RecentAttempts(NoEndings(), paths, io)
    asyncio.run(recent.observe({"ant": 1}))
    assert (recent._resumes, recent._heartbeats) == ({}, {})

    io.recent = None  # one that comes under its name is another job
    asyncio.run(recent.observe({"ant": 1}))
    assert recent.last_resume("ant") is not None


def test_what_a_terminal_would_obey_is_not_shown():
    record = ResumeRecord(2, None, 3, reasons=(Reason("k\x1b", "w\n", "d\r\x07", "h\u202e"),))
    assert resume_reasons(record) == (ReasonView("k ", "w ", "d  ", "h "),)
    assert resume_reasons(None) == ()


def test_status_shows_a_copy_in_memory_that_is_newer_than_the_disk(paths, tmp_path):
    checkpoints = paths.run("ant").checkpoints
    checkpoints.mkdir()
    place = take_place(checkpoints, tmp_path, kind_of=lambda _: "tmpfs")
    (place / "step-000000057").mkdir()
    recent = RecentAttempts(NoEndings(), paths, InPlace())
    asyncio.run(recent.observe({"ant": 1}))
    assert recent.memory_step("ant") == 57
    for disk, line in ((50, "step 57, which does not survive the machine"), (57, None), (None, "step 57")):
        job = dataclasses.replace(MNIST, memory_step=57, checkpoint_step=disk)
        found = [each for each in job_lines(job, 0.0) if each.strip().startswith("in memory")]
        assert (line in found[0]) if line else (found == [])


def test_a_resume_from_memory_is_called_so():
    record = ResumeRecord(2, "step-000000057", 57, source="memory")
    assert summary(record) == "unchecked: no step is run again; from a copy in memory"


def test_status_shows_the_first_reasons_with_what_to_do():
    reasons = tuple(ReasonView("changed-code", f"file {i}", "changed", "look") for i in range(12))
    job = dataclasses.replace(MNIST, resume_reasons=reasons, resume_verdict="suspect")
    lines = job_lines(job, 0.0)
    at = lines.index("reasons for the verdict on the resume")
    assert lines[at + 1 : at + 3] == ["  changed-code: file 0: changed", "    look"]
    assert lines[at + 1 + 2 * REASONS_SHOWN_MAX] == "  and 2 more, in resume.json of the run folder"


@pytest.mark.parametrize("verdict", ["exact", "unchecked"])
def test_what_is_known_of_an_exact_resume_is_no_reason_for_its_verdict(verdict):
    reasons = (ReasonView("no-witness", "step-000000051", "it was saved without a digest", ""),)
    job = dataclasses.replace(MNIST, resume_reasons=reasons, resume_verdict=verdict)
    lines = job_lines(job, 0.0)
    assert "reasons for the verdict on the resume" not in lines
    assert lines[lines.index("notes on the resume") + 1].startswith("  no-witness: step-000000051")
