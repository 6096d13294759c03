"""A user without rights on a state folder gets one sentence from every verb; root leaves no files there."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.checkpoints import commit
from tests.support.other_user import NEIGHBOUR, SERVICE, as_user
from trainerd.checkpoint.store import CheckpointStore
from trainerd.cli.main import group
from trainerd.contract import codec
from trainerd.contract.folder_owner import acting_as_owner_of
from trainerd.contract.paths import StatePaths
from trainerd.contract.policy import RETENTION_FORMAT, RetentionPolicy
from trainerd.supervisor.specs.placement import place_spec

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root: becomes other users"),
]

VERBS = {
    "ps": (),
    "status": ("ant",),
    "logs": ("ant",),
    "logs --daemon": ("--daemon",),
    "events": (),
    "explain": ("ant",),
    "metrics": ("ant",),
    "checkpoints": ("ant",),
    "checkpoint": ("ant",),
    "pin": ("ant", "120"),
    "prune": ("ant",),
    "stop": ("ant",),
    "hold": ("ant",),
    "resume": ("ant",),
    "resume --from": ("ant", "--from", "120"),
    "retry": ("ant",),
    "restart": ("ant",),
    "restart --fresh": ("ant", "--fresh"),
    "rm": ("ant",),
    "edit": ("ant",),
    "drain": (),
    "reload": (),
    "doctor": (),
    "run": ("--jobs", "JOBS"),
    "submit": ("SPEC",),
    "goodput": ("ant",),
    "notify": ("--test",),
    "export": ("ant", "OUT"),
    "sweep": ("SPEC", "--set", "env.SEED=1,2"),
    "clone": ("ant", "bee"),
    "wait": ("ant",),
    "metrics two": ("ant", "bee"),
    "rm --purge": ("ant", "--purge", "--yes"),
    "submit --replace": ("SPEC", "--replace"),
    "submit command": ("--", "true"),
    "prune --dry-run": ("ant", "--dry-run"),
    "drain one": ("ant",),
}


@pytest.fixture
def place():
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="trainerd-rights-"))
    folder.chmod(0o755)
    (folder / "ant.yaml").write_text("command: a")
    (folder / "true.yaml").write_text('command: "true"')
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state(place):
    """A service's state folder with a run of it, closed to others."""
    paths = StatePaths(place / "var")
    for folder in (paths.root, paths.root / "jobs", paths.runs, paths.run("ant").root):
        folder.mkdir(mode=0o700)
    for path in (paths.root, *paths.root.rglob("*")):
        os.chown(path, SERVICE, SERVICE)
    return paths


def invoked(verb: str, words, state: StatePaths):
    named = {
        "JOBS": str(state.root / "jobs"),
        "SPEC": str(state.root.parent / "ant.yaml"),
        "OUT": str(state.root.parent / "out.pt"),
    }
    words = [
        named.get(word, word) for word in (verb.split(maxsplit=1)[0], "--state", str(state.root), *words)
    ]
    result = CliRunner().invoke(group, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return result.exit_code, f"TRACEBACK {type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.output


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_ends_in_a_traceback_or_says_that_nothing_is_there(state, verb):
    missing = StatePaths(state.root.parent / "missing")
    with contextlib.suppress(Exception):  # another user may not be able to read modules that come late
        if verb == "run":
            importlib.import_module("trainerd.supervisor.service.service")
        else:
            invoked(verb, VERBS[verb], missing)
    code, said = as_user(NEIGHBOUR, lambda: invoked(verb, VERBS[verb], state))
    assert "TRACEBACK" not in said
    for wrong in ("no supervisor is running", "no job 'ant'", "no state folder", "there is no log"):
        assert wrong not in said, said
    if verb != "doctor":
        assert code == 1, said
        assert said.startswith("error: "), said
        assert str(SERVICE) in said or "permission denied" in said.lower() or "may use" in said, said
    assert {path.lstat().st_uid for path in state.root.rglob("*")} == {SERVICE}


def test_root_does_not_supervise_the_folder_of_another_user(state):
    code, said = invoked("run", ("--jobs", str(state.root / "jobs")), state)
    assert code == 1
    assert f"belongs to {SERVICE}" in said
    assert f"sudo -u '#{SERVICE}' trainerd" in said
    assert sorted(path.name for path in state.root.iterdir()) == ["jobs", "runs"]


def test_root_runs_no_job_in_the_folder_of_another_users_supervisor(state):
    ant = str(state.root.parent / "true.yaml")
    importlib.import_module("trainerd.supervisor.service.foreground")  # NEIGHBOUR may not be able to read it
    state.journal.touch()
    os.chown(state.journal, SERVICE, SERVICE)
    code, said = as_user(NEIGHBOUR, lambda: invoked("exec", (ant,), state))
    assert (code, "Permission denied" in said, "TRACEBACK" in said) == (1, True, False)
    code, said = invoked("exec", (ant,), state)
    assert (code, f"{state.root} belongs to {SERVICE}" in said) == (1, True)
    assert {path.lstat().st_uid for path in state.root.rglob("*")} == {SERVICE}


def test_root_checks_as_the_user_of_the_service(state):
    code, said = invoked("run", ("--jobs", str(state.root / "jobs"), "--check"), state)
    assert (code, said.strip()) == (0, "all is well")
    assert os.geteuid() == 0
    assert {path.lstat().st_uid for path in state.root.rglob("*")} == {SERVICE}


def test_what_root_submits_belongs_to_the_service_and_can_be_read_by_it(state, place):
    (place / "ant.yaml").chmod(0o600)  # only root may read the original
    target = place_spec(place / "ant.yaml", state.root / "jobs", replace=False)
    assert target.stat().st_uid == SERVICE
    assert as_user(SERVICE, target.read_text).endswith("command: a")
    assert (place / "ant.yaml").stat().st_uid == 0


def test_root_is_root_again_afterwards_also_after_an_error(state):
    before = (os.geteuid(), os.getegid(), os.getgroups())
    seen = []

    def act():
        with acting_as_owner_of(state.root):
            seen.append((os.geteuid(), os.getegid(), os.getgroups()))
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError):
        act()
    assert seen == [(SERVICE, SERVICE, [SERVICE])]
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_what_root_pins_and_prunes_stays_the_services(state):
    def made():
        store = CheckpointStore.of_run(state.run("ant"))
        with store.lock():
            commit(store, 100)
            commit(store, 120)

    made()
    for path in state.runs.rglob("*"):
        os.chown(path, SERVICE, SERVICE, follow_symlinks=False)
    assert invoked("pin", ("ant", "120"), state)[0] == 0
    code, said = invoked("prune", ("ant",), state)
    assert (code, "has not said what it keeps" in said) == (1, True)
    (state.run("ant").root / "retention.json").write_bytes(encoded_retention())
    os.chown(state.run("ant").root / "retention.json", SERVICE, SERVICE)
    for lock in state.runs.rglob("*.lock"):
        lock.unlink()
    code, said = invoked("prune", ("ant",), state)
    assert code == 0, said
    assert [path for path in state.runs.rglob("*") if path.lstat().st_uid != SERVICE] == []


def encoded_retention() -> bytes:
    return codec.to_json(RetentionPolicy(), RETENTION_FORMAT)
