"""What differs between two lists of arguments."""

from __future__ import annotations

import pytest

from trainerd.training.which_run.argument_difference import as_sentence, differing


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("--epochs 2", "--epochs 4", ["--epochs 2 → 4"]),
        ("--epochs=2", "--epochs 4", ["--epochs 2 → 4"]),
        ("", "--amp", ["--amp not given → given"]),
        ("--amp", "", ["--amp given → not given"]),
        ("a.yaml", "b.yaml", ["argument 1 a.yaml → b.yaml"]),
        ("lr=0.1", "lr=0.2", ["lr 0.1 → 0.2"]),
        ("--shift -1", "--shift -2.5", ["--shift -1 → -2.5"]),
        ("--hidden 8 8", "--hidden 8 16", ["--hidden 8 8 → 8 16"]),
        ("--api-key abc", "--api-key def", ["--api-key (hidden) → (hidden)"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_differs_is_said_by_option(before, now, said):
    assert differing(before.split(), now.split()) == said


@pytest.mark.parametrize(
    ("before", "now"),
    [("--lr 0.1", "--lr=0.1"), ("--lr 0.1 --epochs 2", "--epochs 2 --lr 0.1"), ("x --amp", "x --amp")],
    ids=["equals sign", "order", "same"],
)
def test_another_way_of_writing_the_same_is_no_difference(before, now):
    assert differing(before.split(), now.split()) == []


def test_positions_count_and_many_differences_are_counted():
    assert differing(["a", "b"], ["b", "a"]) == ["argument 1 a → b", "argument 2 b → a"]
    assert as_sentence([f"--{n} 1 → 2" for n in "abcdef"]).endswith("--d 1 → 2 and 2 more")


def test_a_long_value_and_escape_sequences_are_safe_to_show():
    (line,) = differing(["--x", "a" * 500], ["--x", "\x1b[31m"])
    assert len(line) < 150
    assert "\x1b" not in line
