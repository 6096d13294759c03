"""`trainerd check`: findings with their lines, and exit codes that scripts can rely on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

WRONG = """\
import trainerd
with trainerd.session() as session:
    session.track(model=model)
    total = 0.0
    for x in session.batches(loader):
        total += x
"""
RIGHT = WRONG.replace("        total += x\n", "        train_step(x)\n")


def check(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "trainerd", "check", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_finding_has_its_line_the_reason_and_what_to_write(tmp_path):
    (tmp_path / "train.py").write_text(WRONG)
    done = check(tmp_path, "train.py")
    first, second, last = done.stdout.splitlines()
    assert first.startswith("train.py:6: total is carried from one batch to the next")
    assert second.startswith("    instead: carry = session.variables(total=…)")
    assert last.startswith("train.py: 1 finding;")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout


def test_nothing_found_exits_with_0(tmp_path):
    (tmp_path / "train.py").write_text(RIGHT)
    done = check(tmp_path, "train.py")
    assert (done.returncode, done.stdout) == (0, "train.py: nothing found\n")


def test_a_script_without_a_session_says_that_nothing_was_checked(tmp_path):
    (tmp_path / "model.py").write_text("total = 0\nfor x in y: total += 1\n")
    done = check(tmp_path, "model.py")
    assert done.returncode == 0
    assert "not checked: it opens no session" in done.stdout
    assert "with trainerd.session() as session:" in done.stdout


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("gone.py", None, "gone.py: No such file or directory"),
        (".", None, ".: is a folder; name the scripts in it"),
        ("bad.py", b"import trainerd\nfor x in:\n", "bad.py:2: not a Python script: invalid syntax"),
        ("latin.py", b"a = 1\nb = '\xe9'\n", "latin.py:2: not a Python script: not text in utf-8"),
        ("cookie.py", b"# coding: nonsense\n", "cookie.py:1: not a Python script: unknown encoding"),
        ("null.py", b"a = 1\0", "null.py:1: not a Python script"),
    ],
)
def test_what_is_no_script_exits_with_2_and_the_others_are_checked(tmp_path, name, data, message):
    (tmp_path / "train.py").write_text(WRONG)
    if data is not None:
        (tmp_path / name).write_bytes(data)
    done = check(tmp_path, name, "train.py")
    assert f"error: {message}" in done.stderr
    assert "train.py:6: total" in done.stdout
    assert done.returncode == 2


def test_a_coding_comment_is_honoured(tmp_path):
    (tmp_path / "train.py").write_bytes(b"# coding: latin-1\nname = '\xe9'\n" + WRONG.encode())
    assert "train.py:8: total" in check(tmp_path, "train.py").stdout


def test_json_has_an_object_for_each_file(tmp_path):
    (tmp_path / "train.py").write_text(WRONG)
    done = check(tmp_path, "--json", "train.py", "gone.py")
    first, second = json.loads(done.stdout)
    assert (first["file"], first["has_session"]) == ("train.py", True)
    assert sorted(first["findings"][0]) == ["column", "instead", "line", "name", "rule", "why"]
    assert (second["file"], second["line"]) == ("gone.py", None)
    assert "No such file" in second["error"]
    assert done.returncode == 2


def test_torch_and_the_supervisor_are_not_loaded(tmp_path):
    (tmp_path / "train.py").write_text(RIGHT)
    program = (
        "import sys\nfrom trainerd.cli.main import group\n"
        "try: group(['check', 'train.py'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'httpx', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "train.py: nothing found\n[]\n"
