"""An env_file is read as people write it, and what stands in it never shows in a message."""

from __future__ import annotations

import os

import pytest

from trainerd.errors import UserError
from trainerd.shim.environment_file import SIZE_BYTES_MAX, read_environment_file


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("  A = 1  ", "1"),
        ("A=", ""),
        ("A= # nothing", ""),
        ("A=two words", "two words"),
        ("A=b#c", "b#c"),
        ("A=b # comment", "b"),
        ("A=a=b", "a=b"),
        ("A=$HOME", "$HOME"),
        ("A='it # $stays \\n'", "it # $stays \\n"),
        ("A='x' # comment", "x"),
        ('A="x\\ny\\t\\"z\\"\\\\ \\$"', 'x\ny\t"z"\\ $'),
        ('A="x" # comment', "x"),
        ('A="unknown \\q"', "unknown \\q"),
        ("A=it's", "it's"),
        ("A=é\u2028x", "é\u2028x"),
        ("A=1\r", "1"),
    ],
)
def test_a_line_is_read_as_a_person_means_it(tmp_path, line, expected):
    path = tmp_path / "secrets.env"
    path.write_bytes(line.encode() + b"\n")
    assert read_environment_file(path) == {"A": expected}


def test_comments_and_empty_lines_are_skipped_and_the_last_value_wins(tmp_path):
    path = tmp_path / "secrets.env"
    path.write_text("\ufeff# first\n\n  # second\nA=1\nB=2\nA=3")
    assert read_environment_file(path) == {"A": "3", "B": "2"}


@pytest.mark.parametrize(
    "line",
    ["hunter2", "1A=hunter2", "A='hunter2", 'A="hunter2', "A='hunter2' x", "A-B=hunter2", "A=\0hunter2"],
)
def test_a_line_that_cannot_be_read_is_named_and_not_shown(tmp_path, line):
    path = tmp_path / "secrets.env"
    path.write_text(f"GOOD=hunter2\n{line}\n")
    with pytest.raises(UserError) as caught:
        read_environment_file(path)
    assert f"{path}:2" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_bytes_that_are_no_text_are_not_shown_either(tmp_path):
    path = tmp_path / "secrets.env"
    path.write_bytes(b"A=hunter2\xff\n")
    with pytest.raises(UserError, match="UTF-8") as caught:
        read_environment_file(path)
    assert caught.value.__cause__ is None


def test_a_missing_file_a_folder_a_pipe_and_a_huge_file_are_refused(tmp_path):
    huge = tmp_path / "huge"
    huge.write_bytes(b"#" * (SIZE_BYTES_MAX + 1))
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        (tmp_path / "missing", "No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (huge, "larger"),
    ]:
        with pytest.raises(UserError, match=words):
            read_environment_file(path)
