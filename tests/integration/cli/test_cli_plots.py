"""Curves and comparisons of `trainerd metrics`."""

from __future__ import annotations

import io
import math
import sys

import pytest
from click.testing import CliRunner

from trainerd.cli.curve_picture import curve_figure
from trainerd.cli.main import group
from trainerd.cli.terminal_plot import HEIGHT, drawn, extent
from trainerd.contract.metric_history import HEADER, encode_line

COMPARED = """\
METRIC    LAST a  LAST b  BEST a  BEST b
loss      0.0625      10  0.0625      10
accuracy     0.5       -     0.9       -
lr             -     0.1       -     0.1

2 of 2 epochs that both have reached, at the last step of each
EPOCH  STEP a  STEP b  loss a  loss b
    0       2       1     nan      10
    1       4       2  0.0625      10
"""


def write(state, name: str, *rows) -> None:
    path = state.run(name).metrics
    path.parent.mkdir(parents=True)
    path.write_bytes(HEADER + b"".join(map(encode_line, rows)))


@pytest.fixture
def runs(state):
    values = [0.125, math.nan, 0.5, 0.0625]
    a = [{"step": n + 1, "epoch": n // 2, "batch": n % 2, "loss": value} for n, value in enumerate(values)]
    scores = [{"report": True, "step": n, "epoch": 0, "accuracy": value} for n, value in ((2, 0.9), (4, 0.5))]
    write(state, "a", *a, *scores)
    write(state, "b", *({"step": n + 1, "epoch": n, "batch": 0, "loss": 10.0, "lr": 0.1} for n in range(2)))
    write(state, "empty")


@pytest.mark.usefixtures("runs")
def test_two_runs_are_compared_by_values_and_at_equal_epochs(trainerd):
    assert trainerd("metrics", "a", "b").stdout == COMPARED


def test_long_names_are_letters_in_the_headings_so_that_a_narrow_terminal_shows_all(trainerd, state):
    for name in ("mnist-lr-0.1-seed-1", "mnist-lr-0.1-seed-2"):
        write(state, name, {"step": 1, "epoch": 0, "batch": 0, "loss": 1.0})
    out = trainerd("metrics", "mnist-lr-0.1-seed-1", "mnist-lr-0.1-seed-2", columns=40).stdout
    assert out.startswith("A: mnist-lr-0.1-seed-1, B: mnist-lr-0.1-seed-2\n")
    assert "METRIC  LAST A  LAST B  BEST A  BEST B" in out


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("columns", [40, 80])
def test_a_plot_fits_its_terminal_and_says_what_it_leaves_out(trainerd, columns):
    lines = trainerd("metrics", "a", "--plot", columns=columns).stdout.splitlines()
    assert lines[0] == "a: loss over 4 steps, 1 not finite"
    assert len(lines) == HEIGHT + 2
    assert max(map(len, lines)) <= columns
    assert lines[1].startswith("   0.5 ┤")
    assert lines[-1].split() == ["1", "4"]


@pytest.mark.usefixtures("runs")
def test_without_unicode_a_plot_is_ascii():
    out = CliRunner(charset="ascii").invoke(group, ["metrics", "--plot", "a"]).stdout_bytes
    assert out.count(b"*") == 3
    assert out.isascii()


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_is_written_of_the_kind_that_its_name_says(trainerd, tmp_path, ending, begins):
    said = trainerd("metrics", "a", "b", "--plot", f"out.{ending}", "--metric", "accuracy").stdout
    assert said == f"out.{ending}: accuracy of a, b\n"
    assert (tmp_path / f"out.{ending}").read_bytes().startswith(begins)
    assert "cannot write" in trainerd("metrics", "a", "--plot", f"no/out.{ending}", code=1).stderr


@pytest.mark.usefixtures("runs")
def test_without_matplotlib_a_picture_is_an_error_that_says_what_to_install(trainerd, monkeypatch):
    monkeypatch.delitem(sys.modules, "trainerd.cli.curve_picture")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    error = trainerd("metrics", "a", "--plot", "out.png", code=1).stderr
    assert "a picture needs matplotlib" in error
    assert "pip install 'trainerd[plot]'" in error


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("a", "--plot", "--metric", "los"), 1, "did you mean 'loss'"),
        (("empty", "--plot"), 1, "nothing was measured"),
        (("a", "a"), 2, "with itself"),
        (("a", "b", "--csv"), 2, "of one run"),
        (("a", "c"), 1, "no job 'c'"),
    ],
)
def test_what_cannot_be_drawn_or_compared_is_said(trainerd, words, code, said):
    assert said in trainerd("metrics", *words, code=code).stderr


@pytest.mark.parametrize(
    "values", [[1.0], [5.0, 5.0], [math.inf, 1.0, -math.inf], [1e308, -1e308], [-1e-300, 0.0]]
)
@pytest.mark.parametrize("is_plain", [True, False])
def test_flat_huge_and_single_values_are_drawn(values, is_plain):
    points = tuple((float(step), value) for step, value in enumerate(values))
    within = extent([points])
    assert within is not None
    lines = drawn(points, within, 40, is_plain=is_plain)
    assert all(len(line) <= 40 for line in lines)
    assert "nan" not in "".join(lines)
    curve_figure({"<b>&": points}, "t").savefig(io.BytesIO())


def test_a_curve_without_a_finite_value_is_an_empty_picture():
    points = ((1.0, math.nan),)
    assert extent([points]) is None
    curve_figure({"a": points}, "t").savefig(io.BytesIO())


def test_a_picture_has_each_curve_with_its_gaps_and_its_name():
    points = tuple((float(step), math.nan if step == 2 else 1.0) for step in range(5))
    axes = curve_figure({"_a$b$": points, "c": points[:1]}, "loss").axes[0]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] == [
        ([0, 1, 2, 3, 4], [1, 1, pytest.approx(math.nan, nan_ok=True), 1, 1]),
        ([0], [1]),
    ]
    assert [text.get_text().strip("\u200b") for text in axes.get_legend().get_texts()] == [r"_a\$b\$", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")
