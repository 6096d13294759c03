"""`trainerd logs --rank` and `--attempt`: what the job does not have is an error that names what it has."""

from __future__ import annotations

import pytest

from trainerd.contract import records
from trainerd.contract.records import LaunchRecord


@pytest.fixture
def run(state):
    return state.run("mnist")


@pytest.fixture
def launched(run):
    """Writes the record of an attempt of so many ranks, each with a log."""

    def launch(attempt: int, ranks: int) -> None:
        paths = run.attempt(attempt)
        paths.root.mkdir(parents=True)
        logs = [run.rank_log(rank) for rank in range(ranks)]
        logs[0].parent.mkdir(exist_ok=True)
        for log in logs:
            with log.open("a") as file:
                file.write(f"--- attempt {attempt} started 2026-11-29T12:00:00Z ---\nhello\n")
        record = LaunchRecord("mnist", attempt, ("true",), "/", {}, ranks, 30.0, tuple(map(str, logs)))
        records.write(paths.launch, record)

    return launch


@pytest.mark.parametrize(
    ("ranks", "hint"), [(1, "its only rank is 0"), (2, "its ranks are 0 to 1"), (4, "its ranks are 0 to 3")]
)
@pytest.mark.parametrize("more", [(), ("-f",), ("--json",)])
def test_a_rank_that_the_job_does_not_have_is_an_error(trainerd, launched, ranks, hint, more):
    launched(1, ranks)
    said = trainerd("logs", "mnist", "--rank", 7, *more, code=1).output
    assert "no rank 7 of mnist" in said
    assert hint in said


def test_a_rank_whose_log_is_all_that_is_left_is_shown(trainerd, launched, run):
    launched(1, 1)
    run.rank_log(5).write_text("old\n")
    assert trainerd("logs", "mnist", "--rank", 5).stdout == "old\n"
    assert "its ranks are 0, 5" in trainerd("logs", "mnist", "--rank", 7, code=1).stderr


def test_a_rank_that_has_logged_nothing_yet_is_no_error(trainerd, launched, run):
    launched(1, 2)
    run.rank_log(1).unlink()
    assert "no rank 1 has logged anything" in trainerd("logs", "mnist", "--rank", 1).stderr


def test_a_rank_of_another_attempt_is_an_error(trainerd, launched):
    launched(1, 4)
    launched(2, 1)
    assert "hello" in trainerd("logs", "mnist", "--rank", 3).stdout
    assert "hello" in trainerd("logs", "mnist", "--rank", 3, "--attempt", 1).stdout
    said = trainerd("logs", "mnist", "--rank", 3, "--attempt", 2, code=1).stderr
    assert said == "error: no rank 3 of attempt 2 of mnist\n  its only rank is 0\n"


def test_a_launch_that_cannot_be_read_leaves_the_logs_to_say_which_ranks_there_are(trainerd, launched, run):
    launched(1, 2)
    run.attempt(1).launch.write_text("{")
    assert "its ranks are 0 to 1" in trainerd("logs", "mnist", "--rank", 7, code=1).stderr


def test_an_attempt_that_the_run_does_not_have_is_an_error(trainerd, run, launched):
    run.root.mkdir(parents=True)
    assert "none was launched yet" in trainerd("logs", "mnist", "--attempt", 1, code=1).stderr
    launched(4, 1)
    assert "its only attempt is 4" in trainerd("logs", "mnist", "--attempt", 99, code=1).stderr
    launched(5, 1)
    said = trainerd("logs", "mnist", "--attempt", 1, code=1).stderr  # of a run that was moved aside
    assert said == "error: no attempt 1 of mnist\n  its attempts are 4 to 5\n"


@pytest.mark.parametrize("option", ["--rank", "--attempt", "--since"])
def test_what_a_job_prints_is_not_chosen_from_the_log_of_the_supervisor(trainerd, state, option):
    assert option in trainerd("logs", "--daemon", option, 1, code=2).stderr
