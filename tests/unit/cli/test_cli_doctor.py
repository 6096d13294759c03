"""What `trainerd doctor` finds, each fault made on purpose, and what it says mends it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.unix_sockets import bind
from trainerd.checkpoint.memory_place import take_place
from trainerd.cli.main import group
from trainerd.contract.paths import StatePaths
from trainerd.contract.resolved import ResolvedJob
from trainerd.shim.cgroup_place import Places
from trainerd.supervisor.attempt.cgroups import why_no_memory
from trainerd.supervisor.doctor import cgroup_checks, folders, installation, machine, memory_places
from trainerd.supervisor.doctor.finding import Status
from trainerd.version import VERSION


@pytest.fixture
def state(tmp_path) -> StatePaths:
    tmp_path.chmod(0o755)
    (tmp_path / "state").mkdir(mode=0o755)
    return StatePaths(tmp_path / "state")


def worst(findings):
    """Return the finding that matters most."""
    order = [Status.OK, Status.SKIPPED, Status.WARNING, Status.BROKEN]
    return max(findings, key=lambda each: order.index(each.status))


def test_a_sound_state_folder_is_ok(state):
    assert {each.status for each in folders.check_state_folder(state)} <= {Status.OK, Status.WARNING}


def test_a_state_folder_that_is_missing_or_open_to_all_is_broken_and_mended_by_what_is_said(state):
    missing = worst(folders.check_state_folder(StatePaths(state.root / "nowhere")))
    assert (missing.status, "trainerd run" in missing.remedy) == (Status.BROKEN, True)
    state.root.chmod(0o777)
    found = worst(folders.check_state_folder(state))
    assert (found.status, found.remedy) == (Status.BROKEN, f"chmod o-w {state.root}")
    assert os.system(found.remedy) == 0
    assert worst(folders.check_state_folder(state)).status is not Status.BROKEN


@pytest.mark.parametrize(
    ("kind", "word"),
    [("tmpfs", "loses all"), ("nfs4", "one machine only"), ("fuse.sshfs", "one machine only")],
)
def test_a_filesystem_that_keeps_less_than_is_promised_is_a_warning(state, monkeypatch, kind, word):
    monkeypatch.setattr(folders, "filesystem_kind", lambda _: kind)
    (found,) = folders.check_filesystem("state folder", state.root)
    assert (found.status, word in found.message, bool(found.remedy)) == (Status.WARNING, True, True)


def test_a_disk_that_is_nearly_full_is_a_warning(state, monkeypatch):
    real = os.statvfs(state.root)
    full = os.statvfs_result((*real[:3], 0, 0, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert worst(folders.check_room(state.root)).status is Status.WARNING


def test_a_stale_socket_and_one_that_is_none_are_told_apart_from_a_supervisor(state):
    assert worst(folders.check_socket(state)).status is Status.SKIPPED
    with socket.socket(socket.AF_UNIX) as listener:
        bind(listener, state.socket)
        state.socket.chmod(0o600)
        listener.listen()
        assert worst(folders.check_socket(state)).status is Status.OK
    stale = worst(folders.check_socket(state))
    assert (stale.status, "is stale" in stale.message) == (Status.WARNING, True)
    state.socket.unlink()
    state.socket.write_text("")
    assert worst(folders.check_socket(state)).status is Status.BROKEN


def test_a_jobs_folder_that_others_may_write_to_is_broken_and_mended_by_what_is_said(tmp_path):
    jobs = tmp_path / "jobs"
    assert worst(folders.check_jobs_folder(jobs)).remedy == f"mkdir -m 755 {jobs}"
    jobs.mkdir()
    jobs.chmod(0o777)
    found = worst(folders.check_jobs_folder(jobs))
    assert found.status is Status.BROKEN
    assert os.system(found.remedy) == 0
    assert worst(folders.check_jobs_folder(jobs)).status is Status.OK


def test_a_spec_that_would_be_refused_is_a_warning_with_its_line(tmp_path):
    (tmp_path / "good.yaml").write_text("command: 'true'")
    (tmp_path / "bad.yaml").write_text("comand: 'true'")
    tmp_path.chmod(0o755)
    findings, jobs = folders.check_specs(tmp_path)
    assert [job.name for job in jobs] == ["good"]
    assert "bad.yaml:1" in worst(findings).message


UNIT = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "Type": "notify",
    "KillMode": "process",
    "Delegate": "yes",
}


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({}, Status.OK, "active"),
        ({"LoadState": "not-found"}, Status.SKIPPED, "not installed"),
        ({"KillMode": "control-group"}, Status.BROKEN, "KillMode=process"),
        ({"Delegate": "no"}, Status.BROKEN, "Delegate=yes"),
        ({"Type": "simple"}, Status.WARNING, "Type=notify"),
        ({"NeedDaemonReload": "yes"}, Status.WARNING, "daemon-reload"),
    ],
    ids=str,
)
def test_a_unit_that_would_kill_the_jobs_is_broken(change, status, word):
    found = worst(installation.judge_unit(UNIT | change))
    assert (found.status, word in found.message + found.remedy) == (status, True)


def test_an_interpreter_that_lacks_what_its_jobs_import_is_named_with_them():
    found = installation.judge_interpreter("py (of ant)", "py", {"trainerd": None, "torch": "2.0"})
    assert (found.status, found.remedy) == (Status.WARNING, "py -m pip install 'trainerd[torch]'")
    sound = installation.judge_interpreter("py (of ant)", "py", {"trainerd": VERSION, "torch": "2.0"})
    assert sound.status is Status.OK


def test_interpreters_are_asked_for_themselves_and_one_that_does_not_run_is_broken():
    ours = ResolvedJob("ant", ("python", "x.py"), "/", "/jobs/ant.yaml", "v1", python=sys.executable)
    gone = ResolvedJob("bee", ("python", "x.py"), "/", "/jobs/bee.yaml", "v1", python="/nowhere/python")
    plain = ResolvedJob("cat", ("sh",), "/", "/jobs/cat.yaml", "v1")
    findings = {
        name: each.status
        for each in installation.check_interpreters([ours, gone, plain])
        for name in ("ant", "bee", "cat")
        if f"(of {name})" in each.message
    }
    assert findings == {"ant": Status.OK, "bee": Status.BROKEN}


def test_a_kernel_without_process_descriptors_is_broken(monkeypatch):
    def refused(_pid):
        raise PermissionError(1, "Operation not permitted")

    assert worst(machine.check_kernel()).status is Status.OK
    monkeypatch.setattr(os, "pidfd_open", refused)
    assert worst(machine.check_kernel()).status is Status.BROKEN


def test_a_clock_that_was_never_set_is_broken(monkeypatch):
    monkeypatch.setattr(machine.time, "time", lambda: 1000.0)
    assert worst(machine.check_clock()).status is Status.BROKEN


def test_what_attempts_have_of_cgroups_is_said_with_its_reason_and_is_no_fault():
    (none,) = cgroup_checks.judge_cgroups(Places(why_not="/sys/fs/cgroup is mounted read-only"), "")
    assert none.status is Status.SKIPPED
    assert "attempts have none of their own: /sys/fs/cgroup is mounted read-only" in none.message
    place = Places(tree=Path("/sys/fs/cgroup/a"))
    tree, memory = cgroup_checks.judge_cgroups(place, "the controller of memory is not delegated to it")
    assert (tree.status, tree.message) == (
        Status.OK,
        "each attempt has one of its own below /sys/fs/cgroup/a",
    )
    assert memory.status is Status.SKIPPED
    assert "reserves and does not limit: the controller of memory is not delegated" in memory.message
    assert {each.status for each in cgroup_checks.judge_cgroups(place, "")} == {Status.OK}


@pytest.mark.parametrize(
    ("controllers", "given_on", "memory", "why_not"),
    [
        ("cpu memory\n", "memory\n", None, ""),
        ("cpu memory\n", "\n", None, "holds processes"),
        ("cpu\n", "\n", None, "not delegated"),
        ("", "", Path("/sys/fs/cgroup/memory/a"), ""),
    ],
)
def test_why_memory_is_not_limited_is_told_from_the_controllers(
    tmp_path, controllers, given_on, memory, why_not
):
    (tmp_path / "cgroup.controllers").write_text(controllers)
    (tmp_path / "cgroup.subtree_control").write_text(given_on)
    said = why_no_memory(Places(tree=tmp_path, memory=memory))
    assert why_not in said
    assert bool(said) == bool(why_not)


def test_copies_in_memory_of_a_run_that_is_gone_are_named_with_their_size_and_how_to_remove_them(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    place = take_place(run, tmp_path, kind_of=lambda _: "tmpfs")
    (place / "data").write_bytes(b"x" * (3 << 20))
    (finding,) = memory_places.check_memory_places(os.geteuid(), tmp_path)
    assert finding.status is Status.OK
    shutil.rmtree(run)
    (finding,) = memory_places.check_memory_places(os.geteuid(), tmp_path)
    assert finding.status is Status.WARNING
    assert f"{place} holds 3.0 MiB of {run}" in finding.message
    subprocess.run(finding.remedy, shell=True, check=True)
    (finding,) = memory_places.check_memory_places(os.geteuid(), tmp_path)
    assert finding.status is Status.OK


def test_a_gpu_without_its_library_is_a_warning(tmp_path):
    assert worst(machine.check_gpus(tmp_path)).status is Status.SKIPPED
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    found = worst(machine.check_gpus(tmp_path))
    assert found.status in {Status.WARNING, Status.BROKEN, Status.OK}
    assert found.message.startswith(("1 device (", "1 device,", "NVML tells of"))


def test_the_verb_shows_every_finding_and_fails_if_something_is_broken(state):
    jobs = state.root.parent / "jobs"
    words = ["doctor", "--state", str(state.root), "--jobs", str(jobs)]
    shown = CliRunner().invoke(group, [*words, "--json"])
    findings = json.loads(shown.stdout)
    assert shown.exit_code == 1
    assert [each["check"] for each in findings if each["status"] == "broken"] == ["jobs folder"]
    jobs.mkdir(mode=0o755)
    mended = CliRunner().invoke(group, words)
    assert mended.exit_code == 0, mended.output
    assert "state folder" in mended.stdout


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_they_are_not_wanted(state, no_color, is_coloured):
    words = ["doctor", "--state", str(state.root)]
    shown = CliRunner(env={"NO_COLOR": no_color}).invoke(group, words, color=True).stdout
    assert ("\x1b[" in shown) is is_coloured
