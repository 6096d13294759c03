"""The verbs that need no supervisor: they read folders."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from trainerd.contract.metric_history import HEADER, encode_line

METRICS = """\
STEP  EPOCH  BATCH  LOSS        LR
   1      0      0   0.5       0.1
   2      0      1   nan       0.1
   3      0      2  0.25  0.333333

3 of 3 steps; resumed 1 time, 1 lost row run again
"""


@pytest.fixture
def history(state):
    path = state.run("mnist").metrics
    path.parent.mkdir(parents=True)
    lines = [
        HEADER,
        encode_line({"step": 1, "epoch": 0, "batch": 0, "loss": 0.5, "lr": 0.1}),
        encode_line({"step": 2, "epoch": 0, "batch": 1, "loss": math.nan, "lr": 0.1}),
    ]
    keep_bytes = sum(map(len, lines))
    lines += [
        encode_line({"step": 3, "epoch": 0, "batch": 2, "loss": 99.0, "lr": 0.1}),
        encode_line(
            {"resume": {"attempt": 2, "checkpoint": "step-000000002", "step": 2, "keep_bytes": keep_bytes}}
        ),
        encode_line({"step": 3, "epoch": 0, "batch": 2, "loss": 0.25, "lr": 1 / 3}),
        encode_line({"report": True, "step": 3, "epoch": 0, "accuracy": 0.5}),
    ]
    path.write_bytes(b"".join(lines))


def test_rows_that_were_lost_are_not_called_run_again_before_they_are(trainerd, state):
    path = state.run("mnist").metrics
    path.parent.mkdir(parents=True)
    lines = [HEADER, encode_line({"step": 1, "epoch": 0, "batch": 0, "loss": 0.5})]
    keep_bytes = sum(map(len, lines))
    lines += [encode_line({"step": step, "epoch": 0, "batch": step - 1, "loss": 0.5}) for step in (2, 3)]
    resume = {"attempt": 2, "checkpoint": "step-000000001", "step": 1, "keep_bytes": keep_bytes}
    lines.append(encode_line({"resume": resume}))
    path.write_bytes(b"".join(lines))
    assert "resumed 1 time, 0 of 2 lost rows run again\n" in trainerd("metrics", "mnist").stdout
    with path.open("ab") as file:
        file.write(encode_line({"step": 2, "epoch": 0, "batch": 1, "loss": 0.5}))
    assert "resumed 1 time, 1 of 2 lost rows run again\n" in trainerd("metrics", "mnist").stdout


@pytest.mark.usefixtures("history")
def test_metrics_is_a_table_with_one_row_a_step(trainerd):
    assert trainerd("metrics", "mnist").stdout == METRICS


@pytest.mark.usefixtures("history")
def test_metrics_as_json_is_exact_and_has_the_resumes(trainerd_json):
    shown = trainerd_json("metrics", "mnist")
    assert list(shown) == ["job", "rows", "reports", "resumes", "superseded"]
    assert [row["loss"] for row in shown["rows"]] == [0.5, "nan", 0.25]
    assert shown["rows"][2]["lr"] == 1 / 3
    assert shown["reports"][0]["accuracy"] == 0.5
    assert (shown["resumes"][0]["checkpoint"], shown["superseded"]) == ("step-000000002", 1)


@pytest.mark.usefixtures("history")
def test_metrics_as_csv_is_exact(trainerd):
    rows = list(csv.DictReader(io.StringIO(trainerd("metrics", "mnist", "--csv").stdout)))
    assert [float(row["lr"]) for row in rows] == [0.1, 0.1, 1 / 3]
    assert rows[1]["loss"] == "nan"


@pytest.mark.usefixtures("history")
def test_reports_are_shown_when_asked_for(trainerd):
    assert trainerd("metrics", "mnist", "--reports", "--csv").stdout == "step,epoch,accuracy\n3,0,0.5\n"
    assert "ACCURACY" in trainerd("metrics", "mnist", "--reports").stdout


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(("last", "steps"), [(1, [3]), (2, [2, 3]), (0, [1, 2, 3]), (9, [1, 2, 3])])
def test_only_the_last_rows_are_shown_when_asked_for(trainerd_json, last, steps):
    assert [row["step"] for row in trainerd_json("metrics", "mnist", "--last", last)["rows"]] == steps


def test_a_job_that_has_measured_nothing_says_so(trainerd, state):
    state.run("mnist").root.mkdir(parents=True)
    assert trainerd("metrics", "mnist").stdout == "mnist has measured nothing yet\n"


def test_a_history_that_is_none_is_an_error_and_not_a_traceback(trainerd, state):
    path = state.run("mnist").metrics
    path.parent.mkdir(parents=True)
    path.write_text('{"format": "another/1"}\n')
    assert "not a metric history" in trainerd("metrics", "mnist", code=1).stderr


def test_csv_and_json_exclude_one_another(trainerd, state):
    state.run("mnist").root.mkdir(parents=True)
    trainerd("metrics", "mnist", "--csv", "--json", code=2)


def test_an_unknown_job_is_an_error_without_a_supervisor_too(trainerd, state):
    state.run("mnist").root.mkdir(parents=True)
    assert trainerd("metrics", "mnits", code=1).stderr == "error: no job 'mnits'\n  did you mean 'mnist'?\n"


def test_a_state_folder_that_is_not_there_is_an_error(trainerd, tmp_path):
    missing = tmp_path / "missing"
    assert trainerd("logs", "mnist", "--state", missing, code=1).stderr.startswith(
        f"error: there is no state folder {missing}\n"
    )


@pytest.fixture
def specs(tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text('command: [python, train.py, "--name", "two words"]\nnproc: 2\n')
    bad.write_text("command: [python]\nnprocs: 2\n")
    return good, bad


def test_validate_says_what_a_spec_would_run(trainerd, specs, tmp_path):
    assert trainerd("validate", specs[0]).stdout == (
        f"ok: {specs[0]}: job 'good' runs `python train.py --name 'two words'` in {tmp_path}, 2 ranks\n"
    )


def test_validate_judges_a_spec_as_it_would_be_in_the_jobs_folder(trainerd, tmp_path):
    (tmp_path / "jobs" / "examples" / "a").mkdir(parents=True)
    spec = tmp_path / "jobs" / "examples" / "a" / "job.yaml"
    spec.write_text("name: a\ncommand: [python, train.py]\nworkdir: examples/a\n")
    assert "does not exist" in trainerd("validate", spec, code=1).stderr
    assert "ok: " in trainerd("validate", "--jobs", tmp_path / "jobs", spec).stdout


def test_validate_shows_every_mistake_and_fails(trainerd, trainerd_json, specs):
    result = trainerd("validate", *specs, code=1)
    assert result.stdout.startswith("ok: ")
    assert f"{specs[1]}:2: nprocs" in result.stderr
    shown = trainerd_json("validate", *specs, code=1)
    assert [(one["ok"], one.get("job")) for one in shown] == [(True, "good"), (False, None)]
    assert "nprocs" in shown[1]["error"]


def test_validate_of_a_file_that_is_not_there_is_an_error(trainerd, tmp_path):
    assert "missing.yaml" in trainerd("validate", tmp_path / "missing.yaml", code=1).stderr


def test_schema_is_json_with_or_without_the_option(trainerd):
    assert trainerd("schema").stdout == trainerd("schema", "--json").stdout
    assert "command" in json.loads(trainerd("schema").stdout)["properties"]
