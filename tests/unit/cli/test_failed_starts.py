"""A start of the supervisor that fails is a log line, whatever kind of error ended it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from trainerd.cli.main import group
from trainerd.errors import UserError
from trainerd.supervisor.service import configuration


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UserError("no such group", hint="name another"), "no such group"),
        (PermissionError(1, "Operation not permitted"), "this user may not do that: Operation not permitted"),
    ],
    ids=["mistake", "rights"],
)
def test_a_start_that_fails_is_a_line_and_a_message(tmp_path, monkeypatch, capfd, error, reason):
    def fail(_config):
        raise error

    monkeypatch.setattr(configuration, "load_configuration", fail)
    words = ["run", "--jobs", str(tmp_path / "jobs"), "--state", str(tmp_path / "state")]
    ended = CliRunner().invoke(group, words)
    assert ended.exit_code == 1
    assert f"error: {reason}" in ended.stderr
    line = json.loads(capfd.readouterr().out)
    assert (line["event"], line["level"], line["reason"]) == ("supervisor.failed", "error", reason)
