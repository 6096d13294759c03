"""`trainerd goodput` reads folders: no supervisor is needed."""

import json

import pytest

from tests.support.fake_control import NOW_S
from trainerd.contract import records
from trainerd.contract.records import ExitRecord, RankExit


@pytest.fixture
def ran(state):
    attempt = state.run("mnist").attempt(1)
    attempt.root.mkdir(parents=True)
    exited = ExitRecord((RankExit(0, exit_code=1),), NOW_S - 100, NOW_S - 40, 60.0, boot_id="b")
    records.write(attempt.exit, exited)


@pytest.mark.usefixtures("ran")
def test_goodput_is_a_table_that_adds_up(trainerd):
    shown = trainerd("goodput", "mnist").stdout
    assert [line.split()[0] for line in shown.splitlines()[1:9]] == [
        "starting", "loading", "useful", "repeated", "saving", "waiting", "down", "sum",
    ]  # fmt: skip
    assert shown.splitlines()[8].split() == ["sum", "1m40s", "100.0", "%"]
    assert "of attempt 1 only beginning and end are known" in shown


@pytest.mark.usefixtures("ran")
def test_goodput_as_json_adds_up(trainerd):
    shown = json.loads(trainerd("goodput", "mnist", "--json").stdout)
    assert shown["job"] == "mnist"
    assert sum(shown["buckets"].values()) == pytest.approx(shown["wall_s"], rel=1e-3)
    assert (shown["wall_s"], shown["buckets"]["down"], shown["share"]) == (100, 100, 0)


def test_a_job_that_has_not_begun_says_so(trainerd, state):
    state.run("mnist").root.mkdir(parents=True)
    assert trainerd("goodput", "mnist").stdout == "mnist has not begun\n"
    assert json.loads(trainerd("goodput", "mnist", "--json").stdout)["share"] is None


def test_an_unknown_job_is_named(trainerd, state):
    state.run("mnist").root.mkdir(parents=True)
    assert "did you mean 'mnist'" in trainerd("goodput", "minst", code=1).stderr


@pytest.mark.usefixtures("ran")
def test_status_has_it_in_a_line_and_as_a_key(trainerd, state):
    line = next(
        line for line in trainerd("status", "mnist", code=17).stdout.splitlines() if "goodput" in line
    )
    assert line.split(maxsplit=1)[1] == "0.0 % useful of 1m40s; down 100.0 %"
    shown = json.loads(trainerd("status", "mnist", "--json", code=17).stdout)
    assert (shown["goodput"]["wall_s"], shown["goodput"]["share"]) == (100, 0)
