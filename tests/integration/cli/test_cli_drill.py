"""Usage errors of `trainerd drill`: exit code 2, and nothing is started."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from trainerd.cli.drill import command
from trainerd.cli.drill_first import seconds_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["--budget", "soon", "--", "python", "train.py"], "is not a duration"),
        (["--budget", "9" * 400, "--", "python", "train.py"], "is not a duration"),
        (["--fault", "kil", "--", "python", "train.py"], "did you mean 'kill'?"),
        (["--", "no-such-program-here"], "cannot find the program"),
        (["missing.yaml"], "missing.yaml"),
        (["--steps", "1", "--", "python", "train.py"], "--steps"),
    ],
    ids=["nothing", "budget", "endless", "fault", "program", "spec", "steps"],
)
def test_a_usage_error_exits_with_2_and_says_what_is_wrong(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_link_outside_of_the_working_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    result = CliRunner().invoke(command, ["--link", str(tmp_path / "data"), "--", "python", "train.py"])
    assert result.exit_code == 2
    assert "is not in the working folder" in result.output


def test_durations():
    assert [seconds_of(text) for text in ("90s", "5m", "1.5h", "30")] == [90.0, 300.0, 5400.0, 30.0]
