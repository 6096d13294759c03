"""What the doctor says of the exit codes that Slurm is configured for."""

from __future__ import annotations

import pytest

from trainerd.supervisor.doctor.finding import Status
from trainerd.supervisor.doctor.slurm_settings import check_slurm, has_code, judge_slurm


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("85", True),
        ("1-10,85", True),
        ("80-90", True),
        ("86-90", False),
        ("185", False),
        ("(null)", False),
        ("", False),
    ],
)
def test_a_list_of_exit_codes_is_read_as_slurm_writes_it(listed, found):
    assert has_code(listed, 85) is found


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ({"RequeueExit": "(null)", "RequeueExitHold": "(null)"}, Status.OK, "a failure to Slurm"),
        ({"RequeueExit": "85"}, Status.OK, "runs a drained job again"),
        ({"RequeueExit": "85", "RequeueExitHold": "80-89"}, Status.WARNING, "is held"),
    ],
)
def test_what_becomes_of_a_drained_job_is_said(settings, status, words):
    (finding,) = judge_slurm(settings)
    assert finding.status is status
    assert words in finding.message


def fake_scontrol(tmp_path, monkeypatch, body: str) -> None:
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_the_controller_is_asked(tmp_path, monkeypatch):
    lines = "Configuration data\\nRequeueExit             = 1,85\\nRequeueExitHold         = (null)\\n"
    fake_scontrol(tmp_path, monkeypatch, f"""[ "$*" = "show config" ] && printf '{lines}'""")
    (finding,) = check_slurm()
    assert (finding.status, "RequeueExit has 85" in finding.message) == (Status.OK, True)


def test_a_controller_that_does_not_answer_is_no_fault(tmp_path, monkeypatch):
    fake_scontrol(tmp_path, monkeypatch, "echo 'Unable to contact slurm controller' >&2; exit 1")
    (finding,) = check_slurm()
    assert finding.status is Status.SKIPPED


def test_without_slurm_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(check_slurm()) == []
