"""Whether a group can use the socket is known before a supervisor starts or a reload replaces one."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.other_user import SERVICE, as_user
from trainerd.errors import UserError
from trainerd.supervisor.service import socket_group
from trainerd.supervisor.service.configuration import SocketSection

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root: becomes a service"),
]
TRAINERS = 4242
SECTION = SimpleNamespace(group="trainers", group_id=TRAINERS)


@pytest.fixture
def state():
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="trainerd-group-"))
    os.chown(folder, SERVICE, SERVICE)
    folder.chmod(0o750)
    yield folder
    shutil.rmtree(folder)


def said(state: Path, groups: tuple[int, ...], section=SECTION) -> str:
    """Return what a service with these groups is told."""

    def check() -> str:
        try:
            socket_group.check_socket_group(section, state)
        except UserError as error:
            return str(error)
        return ""

    return as_user(SERVICE, check, groups)


def test_a_service_that_is_no_member_is_told_how_to_become_one(state):
    assert f"sudo usermod -a -G trainers {SERVICE}" in said(state, ())


def test_it_is_said_that_a_restart_drains_and_that_a_persons_needs_another_login(state, monkeypatch):
    assert "its jobs checkpoint, leave, and go on afterwards" in said(state, ())
    monkeypatch.setattr(Path, "home", lambda: state)
    own = state / ".local/state/trainerd"
    told = said(own, ())
    assert "restart trainerd" not in told
    assert f"usermod -a -G trainers {SERVICE}; then end your manager, sudo systemctl restart user@" in told


def test_a_group_that_was_joined_since_the_start_needs_a_restart(state, monkeypatch):
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="svc", pw_gid=SERVICE))
    monkeypatch.setattr(os, "getgrouplist", lambda *_: [SERVICE, TRAINERS])
    told = said(state, ())
    assert "has joined the group trainers since this supervisor was started" in told
    assert "systemctl restart trainerd" in told


def test_a_group_that_cannot_reach_the_socket_is_refused_with_what_lets_it_through(state):
    told = said(state, (TRAINERS,))
    assert f"{state} is closed to it (mode 0750, group {SERVICE})" in told
    assert f"setfacl -m g:trainers:x {state}" in told
    os.chown(state, -1, TRAINERS)
    assert said(state, (TRAINERS,)) == ""


def test_the_shipped_unit_with_its_own_group_and_a_supervisor_without_a_group_are_fine(state):
    own = SimpleNamespace(group="trainerd", group_id=SERVICE)
    assert said(state, (), own) == ""
    assert said(state, (), SocketSection()) == ""


def test_a_group_that_is_let_through_by_an_access_list_reaches_the_socket(state):
    from trainerd.contract.access_list import ATTRIBUTE, encoded

    nobody = 2**32 - 1
    owner, group, named, mask, others = (
        (1, 7, nobody),
        (4, 5, nobody),
        (8, 1, TRAINERS),
        (16, 5, nobody),
        (32, 0, nobody),
    )
    try:
        os.setxattr(state, ATTRIBUTE, encoded([owner, group, named, mask, others]))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    assert said(state, (TRAINERS,)) == ""


def test_the_check_before_a_reload_asks_for_the_group(state, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from trainerd.cli.main import group as verbs
    from trainerd.supervisor.service import preflight

    name = next(each.gr_name for each in grp.getgrall() if each.gr_gid not in {0, SERVICE})
    config = tmp_path / "trainerd.toml"
    config.write_text(f'[socket]\nmode = "0660"\ngroup = "{name}"\n')
    monkeypatch.setattr(preflight, "_import_all", lambda _package: None)
    jobs = state / "jobs"
    jobs.mkdir()
    words = ["run", "--check", "--state", str(state), "--jobs", str(jobs), "--config", str(config)]
    os.chown(state, 0, 0)
    result = CliRunner().invoke(verbs, words)
    assert result.exit_code == 1
    assert f"the group {name} cannot reach the socket" in result.output
