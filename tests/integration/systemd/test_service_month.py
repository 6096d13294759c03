"""A month of operation on a real systemd, kept short: alerts, journald, upgrades that fail, persons, removal.

The chapters are run in their order on one machine.
"""

from __future__ import annotations

import json
import shutil
import time

import pytest

from tests.integration.systemd.machine import REPOSITORY, Machine, wait_for, why_not
from tests.integration.systemd.test_systemd_service import (
    AS_ANNE,
    INSTALL_LIMIT_S,
    MANAGER,
    WHEELS,
    main_pid,
    make,
    python_for_service,
    wheels,
)

__all__ = ["wheels"]

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

JOBS = "/var/lib/trainerd/jobs"
BROKEN = REPOSITORY / "daemon" / "trainerd" / "supervisor" / "scheduler.py"
AS_BOB = "setpriv --reuid=bob --regid=bob --clear-groups env HOME=/home/bob PATH=/usr/bin:/bin"


@pytest.fixture(scope="module")
def machine(wheels):
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    machine = Machine()
    try:
        machine.boot()
        shutil.copytree(wheels, machine.path(WHEELS))
        machine.path(WHEELS).chmod(0o755)
        make(machine, "install")
        machine.run("systemctl", "enable", "--now", "trainerd")
        yield machine
    finally:
        machine.remove()


def drop(machine: Machine, name: str, command: str) -> None:
    spec = {"command": ["/bin/sh", "-c", command], "restart": {"budget": 0}}
    machine.write(f"{JOBS}/{name}.json", json.dumps(spec))


def warnings(machine: Machine) -> list[dict]:
    """Return what an administrator is alerted of: every line of it is JSON."""
    said = machine.run("journalctl", "-u", "trainerd", "-p", "warning", "-o", "cat", "-b", "-q")
    return [json.loads(line) for line in said.splitlines()]


def wait_warning(machine: Machine, event: str, **fields) -> dict:
    def look() -> dict | None:
        wanted = {"event": event, **fields}
        return next((line for line in warnings(machine) if wanted.items() <= line.items()), None)

    return wait_for(look, lambda: f"{event} {fields}: {warnings(machine)}")


def test_an_attempt_that_ends_badly_is_a_warning_in_the_journal(machine):
    drop(machine, "bad", "exit 3")
    line = wait_warning(machine, "attempt.failed", job="bad")
    assert (line["outcome"], line["exit"], line["signal"], line["retry_in_s"]) == ("crashed", 3, None, None)
    assert {"step", "checkpoint", "reason"} <= line.keys()
    drop(machine, "shot", "kill -SEGV $$")
    assert wait_warning(machine, "attempt.failed", job="shot")["signal"] == "SIGSEGV"
    drop(machine, "good", "exit 0")
    machine.wait_state("good", "finished")
    assert not any(line.get("job") == "good" for line in warnings(machine))


def test_a_forged_line_is_told_by_its_unit(machine):
    forged = '{"level": "error", "event": "attempt.failed", "job": "forged"}'
    machine.run("logger", "-t", "trainerd", "-p", "daemon.err", forged)
    wait_for(
        lambda: "forged" in machine.run("journalctl", "-t", "trainerd", "-o", "cat", "-b"), "the forged line"
    )
    assert not any(line.get("job") == "forged" for line in warnings(machine))


def test_after_journald_was_stopped_and_started_lines_arrive_again(machine):
    main = main_pid(machine)
    sockets = ("systemd-journald.socket", "systemd-journald-dev-log.socket")
    machine.run("systemctl", "stop", *sockets, "systemd-journald", check=False)
    machine.run("systemctl", "start", *sockets, "systemd-journald")
    drop(machine, "later", "exit 4")
    wait_warning(machine, "attempt.failed", job="later")
    assert main_pid(machine) == main


def test_a_second_supervisor_on_the_jobs_folder_is_refused(machine):
    command = ("trainerd", "run", "--jobs", JOBS, "--state", "/var/lib/trainerd/other")
    said = machine.run(
        "setpriv", "--reuid=trainerd", "--regid=trainerd", "--clear-groups", *command, check=False
    )
    assert f"another supervisor (process {main_pid(machine)}) runs the jobs of this folder" in said


def test_a_service_that_is_frozen_for_a_while_is_not_killed(machine):
    main = main_pid(machine)
    machine.run("systemctl", "freeze", "trainerd")
    assert machine.ask("/v1/daemon") is None
    time.sleep(2)
    machine.run("systemctl", "thaw", "trainerd")
    wait_for(lambda: machine.ask("/v1/daemon"), "the service to answer")
    assert main_pid(machine) == main


def test_a_release_that_cannot_start_never_takes_the_place_of_the_old_one(machine):
    main, sound = main_pid(machine), BROKEN.read_text()
    machine.write(str(BROKEN), sound + "\nimport a_module_that_is_not_there\n")
    try:
        with pytest.raises(AssertionError, match="No module named 'a_module_that_is_not_there'"):
            make(machine, "install")
    finally:
        machine.write(str(BROKEN), sound)
    machine.run("systemctl", "reload", "trainerd")
    assert (main_pid(machine), machine.property("ActiveState")) == (main, "active")


def test_a_release_that_passes_its_check_and_is_refused_in_its_place_gives_the_old_one_back(machine):
    main, sound = main_pid(machine), BROKEN.read_text()
    unit = machine.path("/usr/local/lib/systemd/system/trainerd.service").read_text()
    refusal = "import sys\nif sys.prefix == '/opt/trainerd':\n    raise RuntimeError('not at home here')\n"
    machine.write(str(BROKEN), f"{sound}\n{refusal}")
    try:
        with pytest.raises(AssertionError) as said:
            make(machine, "install")
    finally:
        machine.write(str(BROKEN), sound)
    for part in ("was not renewed, and the old program is in /opt/trainerd again", "not at home here"):
        assert part in str(said.value)
    assert machine.run("grep", "-rl", "not at home here", "/opt/trainerd", check=False) == ""
    assert not machine.path("/opt/trainerd.new").exists()
    assert machine.path("/usr/local/lib/systemd/system/trainerd.service").read_text() == unit
    machine.run("systemctl", "reload", "trainerd")
    assert (main_pid(machine), machine.property("ActiveState")) == (main, "active")


def test_settings_that_are_refused_leave_the_old_program_in_place(machine):
    settings = machine.path("/etc/trainerd/trainerd.toml")
    sound, before = settings.read_text(), machine.run("stat", "-c", "%i", "/opt/trainerd")
    settings.write_text("[limits]\nmax_jbos = 3\n")
    try:
        with pytest.raises(AssertionError, match="max_jbos"):
            make(machine, "install")
    finally:
        settings.write_text(sound)
    assert machine.run("stat", "-c", "%i", "/opt/trainerd") == before


def test_an_upgrade_renews_persons_and_removal_never_takes_their_program(machine):
    machine.run("useradd", "--create-home", "anne")
    machine.write("/run/systemd/system/manager.service", MANAGER)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "manager")
    machine.run(*AS_ANNE.split(), "systemctl", "--user", "start", "trainerd")
    state = "/home/anne/.local/state/trainerd"
    before = machine.ask("/v1/daemon", state=state)
    said = make(machine, "install")
    after = machine.ask("/v1/daemon", state=state)
    assert f"supervisor {before['pid']} of anne has been renewed in place as well" in said
    assert (after["pid"], after["started_wall_s"] > before["started_wall_s"]) == (before["pid"], True)
    with pytest.raises(AssertionError, match="as anne: systemctl --user disable --now trainerd"):
        make(machine, "uninstall")
    assert machine.property("ActiveState") == "active"
    machine.run("systemctl", "stop", "manager")


def test_one_person_installs_without_root_and_takes_away_what_is_theirs(machine):
    machine.run("useradd", "--create-home", "bob")
    flags = f"PIP_FLAGS=--no-index --find-links {WHEELS}"
    python = f"PYTHON={python_for_service()}"

    def bob(what: str) -> str:
        command = (*AS_BOB.split(), "make", "-C", REPOSITORY, what, python, flags)
        return machine.run(*command, limit_s=INSTALL_LIMIT_S)

    assert "systemctl --user enable --now trainerd" in bob("install-user")
    unit = machine.path("/home/bob/.local/share/systemd/user/trainerd.service").read_text()
    assert "ExecStart=/home/bob/.local/share/trainerd/bin/trainerd run" in unit
    bob("install-user")
    machine.path("/home/bob/.local/state/trainerd").mkdir(parents=True)
    said = bob("uninstall-user")
    assert "kept /home/bob/.local/state/trainerd" in said
    assert "/var/lib/trainerd" not in said
    left = machine.run("find", "/home/bob/.local", "-name", "*trainerd*").split()
    assert left == ["/home/bob/.local/state/trainerd"]
    assert machine.property("ActiveState") == "active"


def test_removal_speaks_of_what_it_removes(machine):
    assert "nothing of trainerd is installed in /opt/other" in machine.run(
        "make", "-C", REPOSITORY, "uninstall", "PREFIX=/opt/other"
    )
    assert machine.property("ActiveState") == "active"
    said = make(machine, "uninstall")
    assert "kept /var/lib/trainerd" in said
    assert not machine.path("/opt/trainerd").exists()
