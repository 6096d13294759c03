"""`trainerd ps`: which jobs, which columns, one line each."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import click
import pytest

from tests.support.fake_control import NOW_S, job
from trainerd.cli import ps
from trainerd.cli.fitting_table import fitting_lines
from trainerd.cli.job_query import choose, read_format, read_states, sort_jobs
from trainerd.cli.job_table import COLUMNS, WATCH_COLUMNS, event_line, job_rows, reason_now, watch_rows
from trainerd.errors import TryAgainError, UserError

LONG = job(
    "a" * 40, "backing-off", reason="first line\nsecond line " * 9, step=10**9, loss=0.123456, attempt=12
)
JOBS = (LONG, job("bee", "running", step=7, loss=float("nan")), job("cow", "parked"))


def lines(width):
    return [line.plain for line in fitting_lines(COLUMNS, job_rows(JOBS, NOW_S), width)]


@pytest.mark.parametrize("width", [1, 20, 40, 55, 60, 72, 80, 100, 200, None])
def test_each_job_is_one_line_with_its_whole_name_and_state(width):
    heading, *rows = lines(width)
    assert heading.startswith("NAME")
    assert [row.split()[:2] for row in rows] == [[each.name, each.state] for each in JOBS]
    assert all("\n" not in row for row in rows)
    needed = len(LONG.name) + 2 + len("backing-off")
    if width is not None:
        assert max(map(len, rows)) <= max(width, needed)


def test_columns_are_left_out_by_importance_as_it_gets_narrower():
    seen = [lines(width)[0].split() for width in range(200, 50, -1)]
    order = [name for before, after in itertools.pairwise(seen) for name in before if name not in after]
    assert order == ["ATTEMPT", "LOSS", "CHECKPOINT", "SINCE", "EPOCH", "STEP", "REASON"]


def test_the_watched_table_keeps_names_too():
    rows = [line.plain for line in fitting_lines(WATCH_COLUMNS, watch_rows(JOBS, {}, NOW_S), 60)]
    assert [row.split()[0] for row in rows[1:]] == [each.name for each in JOBS]


def test_states_are_named_with_commas_or_again():
    assert read_states(("parked,rejected", "running")) == {"parked", "rejected", "running"}
    with pytest.raises(click.UsageError, match="did you mean 'parked'"):
        read_states(("parkd",))


def test_jobs_are_chosen_by_name_and_state():
    assert [each.name for each in choose(JOBS, ("bee", "cow"), frozenset({"parked"}))] == ["cow"]
    assert len(choose(JOBS, (), frozenset())) == 3
    assert [each.name for each in choose(JOBS, ("c*", "b?e"), frozenset())] == ["bee", "cow"]
    with pytest.raises(UserError, match=r"no job 'd\*'"):
        choose(JOBS, ("d*",), frozenset())
    with pytest.raises(UserError, match="no job 'be'") as caught:
        choose(JOBS, ("be",), frozenset())
    assert caught.value.hint == "did you mean 'bee'?"


def test_what_is_not_known_comes_last_in_either_direction():
    names = [each.name[:3] for each in sort_jobs(JOBS, "step")]
    assert names == ["bee", "aaa", "cow"]
    assert [each.name[:3] for each in sort_jobs(JOBS, "-step")] == ["aaa", "bee", "cow"]
    assert [each.name[:3] for each in sort_jobs(JOBS, "-loss")] == ["aaa", "bee", "cow"]
    with pytest.raises(click.UsageError, match="did you mean 'step'"):
        sort_jobs(JOBS, "setp")


def test_a_format_names_keys_and_nothing_else():
    assert read_format(r"{name:<5}|{step}\t{loss}|{{x}}")(JOBS[2]) == "cow  |-\t-|{x}"
    for wrong in ("{nam}", "{name.upper}", "{name!r}", "{", "{}", "{name:{step}}", "{step:.3q}"):
        with pytest.raises(click.UsageError, match="--format"):
            read_format(wrong)


def test_a_job_that_starts_says_that_it_imports_and_for_how_long():
    starting = job("ant", "starting", phase="importing", reason="launching attempt 1")
    assert reason_now(starting, NOW_S) == "importing for 42s: launching attempt 1"
    plain = job("ant", "running", phase="no-session", reason="attempt 1 runs")
    assert reason_now(plain, NOW_S) == "attempt 1 runs; no session yet, after 42s"
    assert reason_now(plain, NOW_S + 3600) == "attempt 1 runs"


def test_a_line_of_a_pipe_is_one_line():
    assert "\n" not in event_line(LONG, NOW_S)


@pytest.mark.parametrize(
    ("line_of", "expected"),
    [
        (None, ["bee: running (step 7): going", "cow: parked: going", "bee: running (step 9): saved"]),
        (lambda each: f"{each.name} {each.step}", ["bee 7", "cow None", "bee 8", "bee 9"]),
    ],
    ids=["as-lines", "as-a-format"],
)
def test_in_a_pipe_there_is_a_line_for_each_job_and_each_change(monkeypatch, capsys, line_of, expected):
    cow = job("cow", "parked", reason="going")
    looks = [
        (job("bee", "running", reason="going", step=7), cow),
        (job("bee", "running", reason="going", step=8), cow),
        TryAgainError("it is being replaced"),
        (job("bee", "running", reason="saved", step=9), cow),
    ]

    def list_jobs():
        if isinstance(looks[0], Exception):
            raise looks.pop(0)
        return looks.pop(0)

    def pause(_seconds):
        if not looks:
            raise KeyboardInterrupt

    monkeypatch.setattr(ps, "pause", pause)
    with pytest.raises(KeyboardInterrupt):
        ps._watch_lines(SimpleNamespace(list_jobs=list_jobs), list, line_of)
    shown = capsys.readouterr().out.splitlines()
    assert [line.rpartition("  ")[2] for line in shown] == expected
