"""`trainerd notify --test`, with and without a supervisor."""

from __future__ import annotations

import json

from click.testing import CliRunner

from tests.support.loopback_servers import http_fake
from trainerd.cli.main import group


def invoke(*words):
    return CliRunner().invoke(group, ["notify", *words])


def test_hooks_of_a_configuration_are_tried_without_a_supervisor(tmp_path):
    config = tmp_path / "trainerd.toml"
    with http_fake() as fake:
        config.write_text(
            f'[notify.team]\nwebhook = "{fake.url}/SECRET"\n[notify.bad]\ncommand = ["false"]\n[notify.x]\n'
            'events = ["stalled"]\ncommand = ["true"]\n'
        )
        config.chmod(0o644)
        refused = invoke("--test", "--config", str(config))
        assert "holds secrets and is open to all users" in refused.output
        config.chmod(0o600)
        result = invoke("--test", "--config", str(config))
        assert result.output.splitlines() == [
            "team (webhook): delivered",
            "bad (command): false exited with 1",
            "x (command): delivered",
        ]
        assert result.exit_code == 1
        assert json.loads(fake.asked[0].body)["test"] is True
        assert invoke("--test", "team", "--config", str(config)).exit_code == 0
        unknown = invoke("--test", "tean", "--config", str(config))
    assert "did you mean 'team'?" in unknown.output
    assert "--test" in invoke("--config", str(config)).output
