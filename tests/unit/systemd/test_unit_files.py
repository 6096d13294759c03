"""What is in systemd/ agrees with the program that it starts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.unix_sockets import short_folder
from trainerd.supervisor.service.configuration import Configuration, load_configuration

FOLDER = Path(__file__).parents[3] / "systemd"
UNITS = [FOLDER / "system" / "trainerd.service", FOLDER / "user" / "trainerd.service"]


@pytest.fixture
def run_dir():
    """A runtime directory with a short path: the machine's own user units have their sockets below it."""
    with short_folder() as folder:
        yield folder


def settings(unit: Path) -> dict[str, str]:
    lines = [line for line in unit.read_text().splitlines() if line and not line.startswith(("#", "["))]
    return dict(line.split("=", 1) for line in lines)


def test_the_default_configuration_changes_nothing():
    assert load_configuration(FOLDER / "trainerd.toml") == Configuration()


def test_every_field_is_in_the_default_configuration_and_may_be_uncommented(tmp_path, monkeypatch):
    """A hook, of which there may be any number, is shown by an example."""
    monkeypatch.setattr("grp.getgrnam", lambda _name: None)  # the group comes with the installation
    for secret in ("slack-url", "smtp-password"):
        (tmp_path / secret).write_text("https://example.org/secret")
        (tmp_path / secret).chmod(0o600)
    path = tmp_path / "trainerd.toml"
    text = (FOLDER / "trainerd.toml").read_text()
    path.write_text(re.sub(r"^# (\w+ = |\[)", r"\1", text, flags=re.MULTILINE))
    given = load_configuration(path)
    assert set(given.notify) == {"team"}
    for name in Configuration.model_fields.keys() - {"notify"}:
        section = getattr(given, name)
        assert section.model_fields_set == set(type(section).model_fields) - {"password"}, name


@pytest.mark.parametrize("unit", UNITS, ids=["system", "user"])
def test_every_setting_of_a_unit_has_its_reason_in_the_readme(unit):
    readme = (FOLDER / "README.md").read_text()
    plain = {"Description", "Documentation", "ExecStart", "WantedBy"}
    missing = {name for name in settings(unit) if f"`{name}=" not in readme} - plain
    assert not missing


def test_both_units_treat_jobs_alike():
    """What keeps jobs alive is not to be had in one place only."""
    system, user = map(settings, UNITS)
    for name in (
        "Type",
        "NotifyAccess",
        "KillMode",
        "Delegate",
        "Restart",
        "OOMPolicy",
        "WatchdogSec",
        "TimeoutStopSec",
        "StartLimitBurst",
    ):
        assert system[name] == user[name], name
    assert not {"ExecStopPost", "PrivateTmp", "RemoveIPC", "ProtectClock"} & {*system, *user}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_knows_every_setting(tmp_path, run_dir):
    for unit in UNITS:
        copy = tmp_path / unit.parent.name / unit.name
        copy.parent.mkdir()
        copy.write_text(unit.read_text().replace("/opt/trainerd/bin/trainerd", "/bin/true"))
        said = subprocess.run(
            ["systemd-analyze", *(["--user"] if unit.parent.name == "user" else []), "verify", str(copy)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(run_dir), "HOME": str(tmp_path)},
        )
        assert said.stdout + said.stderr == ""
