"""Values of a sweep, and where they go in a spec."""

from __future__ import annotations

import pytest

from trainerd.cli.changed_spec import with_values
from trainerd.cli.swept_values import combinations, read_axis, read_setting, sweep_names
from trainerd.contract.names import NAME_LENGTH_MAX, check_name
from trainerd.errors import UserError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr=0.1,0.01", ("0.1", "0.01")),
        ("lr=0.1, 0.1,3", ("0.1", "3")),
        ("seed=1..4", ("1", "2", "3", "4")),
        ("seed=9,1..2", ("9", "1", "2")),
        ("seed=3..1:-1", ("3", "2", "1")),
        ("x=0..1:0.25", ("0", "0.25", "0.5", "0.75", "1")),
        ("x=0.1..0.3:0.1", ("0.1", "0.2", "0.3")),
        ("lr=1e-4..1e-1*10", ("0.0001", "0.001", "0.01", "0.1")),
        ("lr=8..1*0.5", ("8", "4", "2", "1")),
        ("seed=-1..1", ("-1", "0", "1")),
        ("data=../a,b", ("../a", "b")),
        ("--lr=5..5", ("5",)),
    ],
)
def test_lists_and_ranges(text, values):
    assert read_axis(text) == (text.partition("=")[0].lstrip("-"), values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "no KEY=VALUE"),
        ("=1", "no KEY=VALUE"),
        ("lr=", "empty"),
        ("lr=1,,2", "empty"),
        ("lr=0.1..0.5", "a step or a factor"),
        ("n=5..1", "never gets"),
        ("n=1..5:0", "never gets"),
        ("n=1..5*1", "never gets"),
        ("n=1..5*-2", "never gets"),
        ("n=0..5*2", "never gets"),
        ("n=1..nan", "needs numbers"),
        ("n=1..99999999", "more than 1000"),
    ],
)
def test_what_is_no_list_or_range_is_said(text, said):
    with pytest.raises(UserError, match=said):
        read_axis(text)


def test_all_combinations_the_last_varying_fastest_and_a_bound():
    each = combinations([read_axis("a=1,2"), read_axis("b=x,y")])
    assert [tuple(values.values()) for values in each] == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]
    with pytest.raises(UserError, match="twice"):
        combinations([read_axis("a=1"), read_axis("a=2")])
    with pytest.raises(UserError, match="10000 jobs"):
        combinations([read_axis("a=1..100"), read_axis("b=1..100")])


def test_names_come_from_the_values_and_differ_and_are_valid():
    names = sweep_names(
        "mnist", combinations([read_axis("env.SEED=1,2"), read_axis("data=/d/A b,/e/A.b,/e/A_b")])
    )
    assert names[0] == "mnist-seed-1-data-a-b"
    assert len(set(names)) == len(names) == 6
    long = sweep_names("m", [{"x": "v" * 300 + end} for end in "ab"])
    assert long[0] != long[1]
    for name in [*names, *long]:
        assert check_name(name) == name
        assert len(name) <= NAME_LENGTH_MAX


ROOT = {
    "command": ["python", "t.py", "--lr", "0.1", "--batch-size=4", "model.depth=2", "-w", "3", "--amp"],
    "env": {"SEED": "1"},
}


@pytest.mark.parametrize(
    ("key", "value", "command"),
    [
        ("lr", "-0.5", {3: "-0.5"}),
        ("batch_size", "8", {4: "--batch-size=8"}),
        ("model.depth", "9", {5: "model.depth=9"}),
        ("w", "0", {7: "0"}),
    ],
)
def test_an_option_of_the_command_is_set(key, value, command):
    changed = with_values(ROOT, {key: value})["command"]
    assert {index: word for index, word in enumerate(changed) if word != ROOT["command"][index]} == command


def test_fields_and_placeholders_are_set_and_the_template_stays_as_it_is():
    assert with_values(ROOT, {"env.SEED": "2"})["env"] == {"SEED": "2"}
    assert with_values(ROOT, {"resources.gpus": "2"})["resources"] == {"gpus": 2}
    shell = {"command": ["bash", "-c", "run --lr {lr} > {lr}.txt"]}
    assert with_values(shell, {"lr": "1"})["command"][2] == "run --lr 1 > 1.txt"
    assert ROOT["env"] == {"SEED": "1"}
    assert "resources" not in ROOT


@pytest.mark.parametrize("key", ["amp", "epochs", "name", "group"])
def test_a_key_that_is_nowhere_is_said_with_both_ways_out(key):
    with pytest.raises(UserError, match=f"{{{key}}}"):
        with_values(ROOT, {key: "1"})


def test_a_setting_keeps_what_follows_the_first_equals_sign():
    assert read_setting("opts=a=b") == ("opts", "a=b")
