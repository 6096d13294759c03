"""The record of a drill: written by `submit --drill`, shown by `status` for the spec that was drilled."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from trainerd.cli.drill_first import note_drill
from trainerd.cli.shown_drill import drilled_json, in_force
from trainerd.cli.status import job_lines
from trainerd.contract.drill_record import DrilledRecord, read_drilled, write_drilled
from trainerd.contract.paths import StatePaths
from trainerd.contract.resolved import ResolvedJob
from trainerd.drill.drill_report import DrillReport, FaultResult, overall
from trainerd.supervisor.api.control import JobView

SPEC = ResolvedJob("mnist", ("python", "train.py"), "/work", "/work/job.yaml", "digest-1")
FAULTS = (
    FaultResult("undisturbed", "undisturbed", "exact"),
    FaultResult("drain", "drain", "exact"),
    FaultResult("kill", "kill", "exact"),
    FaultResult("workers", "workers", "not-run"),
)
REPORT = DrillReport(SPEC.command, "exact", FAULTS, 30, "all", 10.0, 1_800_000_000.0)


def drilled_line(record, digest="digest-1"):
    job = JobView("mnist", "running", "", 0.0, 1, "", "", spec_digest=digest)
    lines = job_lines(job, 10.0, drilled=in_force(job, record))
    return next((line for line in lines if line.strip().startswith("drilled")), None)


def test_the_drill_of_the_spec_in_force_is_shown_with_verdict_and_date(tmp_path):
    state = StatePaths(tmp_path)
    note_drill(state, SPEC, REPORT, say=print)
    line = drilled_line(read_drilled(state.drill("mnist")))
    assert line.split()[1] == "exact,"
    assert "2027-01-1" in line
    assert "(2 faults)" in line


def test_faults_that_did_not_fit_the_budget_are_shown(tmp_path):
    state = StatePaths(tmp_path)
    unfit = FaultResult("twice", "twice", "not-run", lacks_budget=True)
    note_drill(state, SPEC, dataclasses.replace(REPORT, faults=(*FAULTS, unfit, unfit)), say=print)
    assert "(2 of 4 faults run, the others did not fit the budget)" in drilled_line(
        read_drilled(state.drill("mnist"))
    )


def test_one_fault_that_did_not_fit_and_one_that_was_run_are_counted_in_the_singular():
    assert "(1 fault)" in drilled_line(DrilledRecord("exact", 1, "digest-1", 1.8e9))
    assert "(1 of 2 faults run, the other did not fit the budget)" in drilled_line(
        DrilledRecord("exact", 1, "digest-1", 1.8e9, unfit=1)
    )


@pytest.mark.parametrize(
    ("unfit", "said"), [(0, "(no fault was run)"), (2, "(no fault was run, as none fitted the budget)")]
)
def test_a_drill_that_ran_no_fault_is_shown_as_unchecked(tmp_path, unfit, said):
    state = StatePaths(tmp_path)
    left_out = (FaultResult("twice", "twice", "not-run", lacks_budget=True),) * unfit
    faults = (FAULTS[0], FAULTS[3], *left_out)
    note_drill(state, SPEC, dataclasses.replace(REPORT, verdict=overall(faults), faults=faults), say=print)
    line = drilled_line(read_drilled(state.drill("mnist")))
    assert line.split()[1] == "unchecked,"
    assert line.endswith(said)


@pytest.mark.parametrize("verdict", ["different", "unchecked"])
def test_a_drill_that_is_not_exact_replaces_no_record_of_another_spec(tmp_path, verdict):
    state = StatePaths(tmp_path)
    note_drill(state, SPEC, REPORT, say=print)
    refused = dataclasses.replace(REPORT, verdict=verdict)
    note_drill(state, dataclasses.replace(SPEC, spec_digest="digest-2"), refused, say=print)
    assert read_drilled(state.drill("mnist")).verdict == "exact"
    note_drill(state, SPEC, refused, say=print)
    assert read_drilled(state.drill("mnist")).verdict == verdict
    note_drill(state, dataclasses.replace(SPEC, spec_digest="digest-2"), REPORT, say=print)
    assert read_drilled(state.drill("mnist")).spec_digest == "digest-2"


@pytest.mark.parametrize("verdict", ["exact", "different"])
def test_a_record_of_an_older_version_is_read(tmp_path, verdict):
    state = StatePaths(tmp_path)
    state.drill("mnist").parent.mkdir()
    old = {"format": "trainerd.drilled/1", "faults": 2, "spec_digest": "digest-1", "wall_s": 1.8e9}
    state.drill("mnist").write_text(json.dumps({**old, "verdict": verdict}))
    assert drilled_line(read_drilled(state.drill("mnist"))).split()[1] == f"{verdict},"


def test_a_script_that_was_written_since_the_drill_is_named(tmp_path):
    script, output = tmp_path / "train.py", tmp_path / "loss.csv"
    for file in (script, output):
        file.touch()
        os.utime(file, (REPORT.wall_s - 60, REPORT.wall_s - 60))
    state = StatePaths(tmp_path)
    command = ("python", "train.py", "--out", "loss.csv", "absent.py", "\0.py")
    note_drill(state, dataclasses.replace(SPEC, command=command, workdir=str(tmp_path)), REPORT, say=print)
    record = read_drilled(state.drill("mnist"))
    assert record.programs == (str(script),)
    os.utime(output)
    assert "drill it again" not in drilled_line(record)
    os.utime(script, (REPORT.wall_s - 5, REPORT.wall_s - 5))  # while the drill ran, for ten seconds
    assert drilled_line(record).endswith("; not with train.py as it is now: drill it again")
    script.unlink()
    assert "not with train.py as it is now" in drilled_line(record)


def test_the_drill_of_another_spec_is_not_shown():
    record = DrilledRecord("exact", 2, "digest-1", 1.8e9)
    assert drilled_line(record) is not None
    assert drilled_line(record, "digest-2") is None
    assert drilled_line(record, "") is None
    assert drilled_line(None) is None


def test_a_program_is_told_which_scripts_were_written_since(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("")
    began_s = script.stat().st_mtime
    record = DrilledRecord("exact", 2, "d", 1.8e9, unfit=1, began_wall_s=began_s, programs=(str(script),))
    told = {"verdict": "exact", "faults": 2, "unfit": 1, "wall_s": 1.8e9}
    assert drilled_json(record) == {**told, "written_since": []}
    os.utime(script, (began_s + 1, began_s + 1))
    assert drilled_json(record) == {**told, "written_since": ["train.py"]}


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    state = StatePaths(tmp_path)
    assert read_drilled(state.drill("mnist")) is None
    write_drilled(state.drill("mnist"), DrilledRecord("exact", 2, "d", 1.0))
    assert read_drilled(state.drill("mnist")) == DrilledRecord("exact", 2, "d", 1.0)
    state.drill("mnist").write_text('{"format": "trainerd.drilled/1", "verdict": "perfect"}')
    assert read_drilled(state.drill("mnist")) is None


def test_a_record_that_cannot_be_written_is_said_and_raises_nothing(tmp_path):
    (tmp_path / "drills").write_text("a file")
    said = []
    note_drill(StatePaths(tmp_path), SPEC, REPORT, say=said.append)
    assert "cannot be written" in said[0]
