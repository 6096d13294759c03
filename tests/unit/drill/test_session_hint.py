"""A job without a session: the drill names `trainerd adopt`, or the script that it has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainerd.contract.names import ADOPTED_SUFFIX
from trainerd.drill.session_hint import session_hint


@pytest.mark.parametrize("script", ["train.py", "src/train.py"])
def test_the_verb_is_named_with_the_script(tmp_path, script):
    hint = session_hint(["python", "-u", script, "--epochs", "2"], tmp_path)
    assert hint.startswith(f"`trainerd adopt {script}` changes a plain script")
    assert "docs/training-api.md" in hint


def test_a_changed_script_that_is_there_is_named(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / f"train{ADOPTED_SUFFIX}.py").touch()
    hint = session_hint(["python", "src/train.py"], tmp_path)
    assert hint.startswith(f"{Path('src/train_adopted.py')} is the script that `trainerd adopt` has changed")


@pytest.mark.parametrize("command", [["python", "-m", "train"], ["./train"], []])
def test_a_command_without_a_script_is_no_error(tmp_path, command):
    assert session_hint(command, tmp_path).startswith("`trainerd adopt` changes")
