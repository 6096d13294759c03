"""What doctor, spec rejections and client errors tell people to type is run: it cures and breaks nothing."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.other_user import NEIGHBOUR, SERVICE, as_user
from tests.support.unix_sockets import bind
from trainerd.cli import doctor
from trainerd.cli.client import Client, NotRunningError
from trainerd.cli.how_to_start import start_command
from trainerd.contract.access_list import ATTRIBUTE, encoded
from trainerd.contract.paths import StatePaths
from trainerd.errors import UserError
from trainerd.supervisor.doctor import folders
from trainerd.supervisor.doctor.finding import Status
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.trust import TrustPolicy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root: gives files to other users"),
]
TRUST = TrustPolicy.of_user(SERVICE)
FAULTS_MAX = 2
"""So many faults one thing may have, told one after the other."""
BAD = {Status.BROKEN, Status.WARNING}


@pytest.fixture
def place():
    """A folder that every user may pass, unlike those that pytest makes."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="trainerd-remedies-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state(place):
    """A healthy installation of a service, as systemd makes it."""
    paths = StatePaths(place / "var")
    for folder in (paths.root, paths.root / "jobs", paths.runs, paths.log.parent):
        folder.mkdir(mode=0o750)
        os.chown(folder, SERVICE, SERVICE)
    for file in (paths.lock, paths.journal, paths.log):
        file.touch(mode=0o644)
        os.chown(file, SERVICE, SERVICE)
    return paths


def rights(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return owner, group and mode of all that is below a folder."""
    return {
        path: (path.lstat().st_uid, path.lstat().st_gid, stat.S_IMODE(path.lstat().st_mode))
        for path in (folder, *folder.rglob("*"))
    }


def commanded(text: str) -> str:
    """Return the command of a remedy that may begin with a sentence."""
    return re.search(
        r"(?:^|: )((?:sudo |chmod|chown|install|mkdir|mv)\S*.*)$", text.splitlines()[-1].strip()
    )[1]


def run(remedy: str) -> None:
    """Type what a remedy says; root needs no sudo."""
    subprocess.run(["sh", "-ec", commanded(remedy).replace("sudo ", "")], check=True)


def examine(paths: StatePaths) -> list:
    return [
        each
        for each in (
            *folders.check_state_folder(paths, SERVICE),
            *folders.check_socket(paths, SERVICE),
            *folders.check_jobs_folder(paths.root / "jobs", SERVICE),
            *folders.check_specs(paths.root / "jobs", SERVICE)[0],
        )
        if each.status in BAD and "disk space" not in each.check and " is on " not in each.message
    ]


def test_a_healthy_installation_is_healthy_for_root_and_a_neighbour_is_told_whom_to_ask(state):
    assert examine(state) == []
    seen = as_user(NEIGHBOUR, lambda: [(each.status.value, each.remedy) for each in examine(state)])
    assert seen == []
    shown = as_user(NEIGHBOUR, lambda: [each.message for each in folders.check_socket(state, SERVICE)])
    assert "cannot be looked at by this user" in shown[0]


FAULTS = {
    "open to all": lambda paths: paths.root.chmod(0o777),
    "read by all": lambda paths: paths.root.chmod(0o755),
    "passed by all": lambda paths: paths.root.chmod(0o711),
    "shut to its owner": lambda paths: paths.root.chmod(0o400),
    "a lock of root's": lambda paths: os.chown(paths.lock, 0, 0),
    "a journal of root's": lambda paths: paths.journal.with_name("journal.sqlite3-wal").touch(),
    "a run of root's": lambda paths: (paths.runs / "ant" / "logs").mkdir(parents=True),
    "jobs of a stranger": lambda paths: os.chown(paths.root / "jobs", NEIGHBOUR, NEIGHBOUR),
    "jobs open to all": lambda paths: (paths.root / "jobs").chmod(0o777),
    "jobs of a group": lambda paths: (paths.root / "jobs").chmod(0o770),
    "no jobs": lambda paths: (paths.root / "jobs").rmdir(),
    "a file for a socket": lambda paths: paths.socket.touch(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_doctor_says_cures_and_takes_nothing_away(state, fault):
    healthy = rights(state.root)
    FAULTS[fault](state)
    assert examine(state)
    for _ in range(FAULTS_MAX):
        for each in examine(state):
            run(each.remedy)
    assert examine(state) == []
    for path, (uid, _, mode) in healthy.items():
        now = path.lstat()
        assert (now.st_uid, stat.S_IMODE(now.st_mode) & mode & 0o700) == (uid, mode & 0o700), path
    entries = [path.lstat().st_uid for path in state.root.rglob("*") if "sock" not in path.name]
    assert set(entries) == {SERVICE}


def spec_at(path: Path, text: str, *, uid: int, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def refused(path: Path) -> str:
    """Return what the supervisor says of a spec."""
    warm = path.with_name(
        "warm.toml"
    )  # another user may not be able to read the modules that are loaded late
    for text in ('command = "a"', "nothing"):
        warm.write_text(text)
        with contextlib.suppress(UserError):
            load_spec(warm, trust=None)
    warm.unlink()
    return str(as_user(SERVICE, lambda: load_spec(path, trust=TRUST) and "accepted"))


def cure(spec: Path) -> None:
    """Do what the rejections of a spec say until it is accepted."""
    for _ in range(FAULTS_MAX):
        if (said := refused(spec)) != "accepted":
            run(said.replace("; ", ": "))
    assert refused(spec) == "accepted"


@pytest.mark.parametrize("hidden", [False, True], ids=["a home that may be passed", "a closed home"])
def test_a_spec_that_links_into_a_home_is_copied_and_the_home_stays_its_owners(state, place, hidden):
    home = place / "home"
    home.mkdir(mode=0o755)
    spec_at(home / "mine.yaml", "command: a", uid=NEIGHBOUR)
    os.chown(home, NEIGHBOUR, NEIGHBOUR)
    home.chmod(0o700 if hidden else 0o755)
    before = rights(home)
    link = state.root / "jobs/ant.yaml"
    link.symlink_to(home / "mine.yaml")
    said = refused(link)
    assert "install -o" in said
    run(said)
    assert refused(link) == "accepted"
    assert rights(home) == before


@pytest.mark.parametrize(
    ("uid", "mode"),
    [
        (NEIGHBOUR, 0o644),
        (SERVICE, 0o666),
        (SERVICE, 0o664),
        (SERVICE, 0o200),
        (0, 0o600),
        (NEIGHBOUR, 0o600),
    ],
)
def test_what_a_rejection_says_of_rights_cures_the_spec(state, uid, mode):
    spec = spec_at(state.root / "jobs/ant.yaml", "command: a", uid=uid, mode=mode)
    assert refused(spec) != "accepted"
    cure(spec)


@pytest.mark.parametrize(
    ("uid", "gid", "mode"),
    [
        (SERVICE, SERVICE, 0o640),
        (0, SERVICE, 0o640),
        (0, 0, 0o600),
        (SERVICE, 4242, 0o660),
        (SERVICE, 0, 0o604),
    ],
)
def test_secrets_are_for_the_service_alone_and_stay_readable_for_it(state, uid, gid, mode):
    secrets = spec_at(state.root / "jobs/s.env", "A=1", uid=SERVICE)
    os.chown(secrets, uid, gid)
    secrets.chmod(mode)
    spec = spec_at(state.root / "jobs/ant.yaml", "command: a\nenv_file: s.env", uid=SERVICE)
    assert "s.env" in refused(spec)
    cure(spec)
    assert as_user(SERVICE, secrets.read_text) == "A=1"


def test_secrets_of_another_user_are_copied_not_taken(state, place):
    mine = spec_at(place / "mine.env", "A=1", uid=NEIGHBOUR, mode=0o600)
    spec = spec_at(state.root / "jobs/ant.yaml", f"command: a\nenv_file: {mine}", uid=SERVICE)
    run(refused(spec).replace("; ", ": "))
    assert (mine.stat().st_uid, stat.S_IMODE(mine.stat().st_mode)) == (NEIGHBOUR, 0o600)
    spec_at(spec, "command: a\nenv_file: mine.env", uid=SERVICE)
    assert refused(spec) == "accepted"


OWNER, NAMED_USER, GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY = 2**32 - 1


def with_list(path: Path, uid: int, permissions: int) -> None:
    """Give a user rights by an access list."""
    entries = [(OWNER, 6, NOBODY), (NAMED_USER, permissions, uid), (GROUP, 0, NOBODY)]
    try:
        os.setxattr(path, ATTRIBUTE, encoded([*entries, (MASK, 7, NOBODY), (OTHERS, 0, NOBODY)]))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")


def test_an_access_list_counts(state):
    spec = spec_at(state.root / "jobs/ant.yaml", "command: a\nenv_file: s.env", uid=SERVICE)
    secrets = spec_at(state.root / "jobs/s.env", "A=1", uid=0, mode=0o600)
    with_list(secrets, SERVICE, 4)
    assert refused(spec) == "accepted"
    with_list(secrets, NEIGHBOUR, 4)
    assert f"open to the user {NEIGHBOUR}" in refused(spec)
    with_list(secrets, SERVICE, 4)
    with_list(spec, NEIGHBOUR, 6)
    said = refused(spec)
    assert f"can be written by the user {NEIGHBOUR}" in said
    run(said)
    assert refused(spec) == "accepted"


def asked(paths: StatePaths) -> tuple[str, str]:
    """Return the kind and the words of the error of a client."""
    try:
        with Client(paths) as client:
            client.list_jobs()
    except UserError as error:
        return type(error).__name__, str(error)
    return "", ""


def test_not_to_be_let_in_is_not_to_be_told_that_nothing_runs(state):
    with socket.socket(socket.AF_UNIX) as listener:
        bind(listener, state.socket)
        os.chown(state.socket, SERVICE, SERVICE)
        state.socket.chmod(0o600)
        for mode in (0o750, 0o755):
            state.root.chmod(mode)
            kind, said = as_user(NEIGHBOUR, lambda: asked(state))
            assert (kind, f"sudo -u '#{SERVICE}' trainerd" in said) == ("UserError", True), said
    state.socket.unlink()
    kind, said = asked(state)
    assert kind == NotRunningError.__name__
    command = f"sudo -u '#{SERVICE}' trainerd run --jobs {state.root}/jobs --state {state.root}"
    assert command in said


def test_a_folder_within_its_owners_home_is_not_given_to_the_service(place, monkeypatch):
    jobs = place / "home" / "project" / "jobs"
    jobs.mkdir(parents=True)
    os.chown(jobs, NEIGHBOUR, NEIGHBOUR)
    owner = SimpleNamespace(pw_name="alice", pw_dir=str(place / "home"), pw_uid=NEIGHBOUR)
    known = pwd.getpwuid
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: owner if uid == NEIGHBOUR else known(uid))
    (found,) = folders.check_jobs_folder(jobs, SERVICE)
    assert (found.status, found.remedy) == (
        Status.BROKEN,
        f"keep specs in a folder of {SERVICE}'s own, and name that one with --jobs",
    )


def test_the_jobs_folder_of_another_project_is_not_taken_for_the_services(state, place, monkeypatch):
    """The service is down or not to be asked, and the user of a project of their own asks there."""
    (place / "jobs").mkdir()
    os.chown(place / "jobs", NEIGHBOUR, NEIGHBOUR)
    monkeypatch.chdir(place)
    assert doctor._jobs_dir(None, state, SERVICE) == state.root / "jobs"
    assert as_user(NEIGHBOUR, lambda: doctor._jobs_dir(None, state, SERVICE)) is None
    assert doctor._jobs_dir(None, StatePaths(place / "nowhere"), NEIGHBOUR) == place / "jobs"


def test_a_state_folder_that_is_missing_is_made_by_what_starts_the_service(place):
    (found,) = folders.check_state_folder(
        StatePaths(place / "none"), start_command="systemctl start trainerd"
    )
    assert "`systemctl start trainerd` makes it" in found.remedy
    (found,) = folders.check_state_folder(StatePaths(place / "a folder"))
    assert f"trainerd run --state '{place}/a folder'" in found.remedy


@pytest.mark.parametrize("folder", [".config/systemd/user", ".local/share/systemd/user"])
def test_a_person_starts_their_supervisor_by_their_unit_and_root_starts_it_for_them(
    place, monkeypatch, folder
):
    """The second folder is where `make install-user` puts the unit."""
    from trainerd.cli import how_to_start

    home, paths = place / "home", StatePaths(place / "home/.local/state/trainerd")
    for each in (paths.root, home / folder):
        each.mkdir(parents=True)
    os.chown(paths.root, NEIGHBOUR, NEIGHBOUR)
    monkeypatch.setattr(how_to_start, "UNIT_FOLDERS", ())
    monkeypatch.setattr(Path, "home", lambda: home)
    assert "trainerd run" in start_command(paths)
    (home / folder / "trainerd.service").touch()
    assert as_user(NEIGHBOUR, lambda: start_command(paths)) == "systemctl --user start trainerd"
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    owner = SimpleNamespace(pw_name="alice", pw_dir=str(home), pw_uid=NEIGHBOUR)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: owner)
    assert start_command(paths) == "systemctl --user --machine=alice@ start trainerd"


def test_a_supervisor_is_started_by_the_unit_where_there_is_one(state, monkeypatch):
    from trainerd.cli import how_to_start

    monkeypatch.setattr(how_to_start, "SYSTEM_STATE", state.root)
    monkeypatch.setattr(how_to_start, "unit_exists", lambda kind, *_: kind == "system")
    assert start_command(state) == "systemctl start trainerd"
    assert as_user(NEIGHBOUR, lambda: start_command(state)) == "sudo systemctl start trainerd"
