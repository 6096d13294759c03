"""A spec is run only if nobody but its owner could have written it."""

from __future__ import annotations

import grp
import os
import pwd
from types import SimpleNamespace

import pytest

from trainerd.errors import SpecError, UntrustedError
from trainerd.supervisor.specs import trust as trust_module
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.trust import TrustPolicy

TRUST = TrustPolicy.of_this_user()
needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def spec(folder):
    path = folder / "job.yaml"
    path.write_text("command: a")
    path.chmod(0o644)
    return path


@pytest.fixture
def foreign_group(monkeypatch):
    """Make every group look as if it had other members."""
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="staff", gr_mem=["eve"]))


def test_a_spec_of_ones_own_is_trusted(spec):
    assert load_spec(spec, trust=TRUST).name == "job"


@pytest.mark.parametrize(
    ("mode", "remedy"), [(0o646, "chmod o-w"), (0o666, "chmod o-w"), (0o664, "chmod g-w")]
)
def test_a_spec_that_others_can_write_is_refused(spec, mode, remedy, foreign_group):
    spec.chmod(mode)
    with pytest.raises(UntrustedError, match=f"{remedy} {spec}"):
        load_spec(spec, trust=TRUST)


@pytest.mark.parametrize(
    ("mode", "remedy"), [(0o757, "chmod o-w"), (0o1777, "chmod o-w"), (0o775, "chmod g-w")]
)
def test_a_folder_that_others_can_write_is_refused(spec, mode, remedy, foreign_group):
    spec.parent.chmod(mode)
    with pytest.raises(UntrustedError, match=f"{remedy} {spec.parent}"):
        load_spec(spec, trust=TRUST)


@pytest.mark.parametrize(
    ("group", "members", "is_trusted"),
    [
        ("OWNER", [], True),
        ("OWNER", ["OWNER"], True),
        ("OWNER", ["OWNER", "eve"], False),
        ("staff", [], False),
    ],
)
def test_writable_by_the_group_is_fine_where_the_group_is_the_owners_own(
    spec, monkeypatch, group, members, is_trusted
):
    owner = pwd.getpwuid(os.geteuid()).pw_name
    found = SimpleNamespace(
        gr_name=group.replace("OWNER", owner), gr_mem=[name.replace("OWNER", owner) for name in members]
    )
    monkeypatch.setattr(trust_module.grp, "getgrgid", lambda gid: found)
    spec.chmod(0o664)
    if is_trusted:
        load_spec(spec, trust=TRUST)
    else:
        with pytest.raises(UntrustedError):
            load_spec(spec, trust=TRUST)


def test_a_stranger_is_named_with_the_command_that_mends_it(spec):
    """The policy is asked as another user would ask it, so that this needs no root."""
    stranger = TrustPolicy(frozenset({os.geteuid() + 12345}))
    with pytest.raises(UntrustedError, match=r"belongs to .*\n  sudo chown "):
        load_spec(spec, trust=stranger)


@pytest.mark.parametrize("what", ["spec", "folder", "env_file"])
@pytest.mark.parametrize("_", [pytest.param(None, marks=needs_root)])
def test_what_a_stranger_owns_is_refused(spec, what, _):
    secrets = spec.parent / "secrets.env"
    secrets.touch(mode=0o600)
    spec.write_text("command: a\nenv_file: secrets.env")
    load_spec(spec, trust=TRUST)
    os.chown({"spec": spec, "folder": spec.parent, "env_file": secrets}[what], 12345, 12345)
    with pytest.raises((UntrustedError, SpecError), match="belongs to 12345"):
        load_spec(spec, trust=TRUST)


@pytest.mark.parametrize("_", [pytest.param(None, marks=needs_root)])
def test_what_root_owns_is_trusted_by_every_user(spec, _):
    load_spec(spec, trust=TrustPolicy(frozenset({0, 12345})))


def test_of_a_link_the_target_is_judged(folder, tmp_path):
    target = tmp_path / "target.yaml"
    target.write_text("command: a")
    target.chmod(0o666)
    (folder / "job.yaml").symlink_to(target)
    with pytest.raises(UntrustedError, match="written by all users"):
        load_spec(folder / "job.yaml", trust=TRUST)
    target.chmod(0o644)
    load_spec(folder / "job.yaml", trust=TRUST)


def test_of_a_link_every_folder_on_the_way_is_judged(folder, tmp_path):
    """Whoever can write to a folder on the way could make the link lead to any file of the owner's."""
    shared, safe = tmp_path / "shared", tmp_path / "safe"
    safe.mkdir()
    shared.mkdir()
    (safe / "target.yaml").write_text("command: a")
    (shared / "hop.yaml").symlink_to("../safe/target.yaml")
    (folder / "job.yaml").symlink_to(shared / "hop.yaml")
    load_spec(folder / "job.yaml", trust=TRUST)
    shared.chmod(0o777)
    with pytest.raises(UntrustedError, match="shared"):
        load_spec(folder / "job.yaml", trust=TRUST)


def test_without_a_policy_anybodys_spec_can_be_shown(spec):
    spec.chmod(0o666)
    assert load_spec(spec, trust=None).name == "job"


@pytest.mark.parametrize(("mode", "is_trusted"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_whoever_may_exchange_the_folder_is_judged_as_whoever_may_write_there(tmp_path, mode, is_trusted):
    """The jobs folder may be sound, and stand in one where everybody may put another in its place."""
    folder = tmp_path / "shared" / "deeper" / "jobs"
    folder.mkdir(parents=True, mode=0o755)
    shared = tmp_path / "shared"
    shared.chmod(mode)
    policy = TrustPolicy.of_this_user()
    if is_trusted:
        policy.judge_folder(folder)
    else:
        with pytest.raises(UntrustedError, match=f"chmod o-w {shared}"):
            policy.judge_folder(folder)
