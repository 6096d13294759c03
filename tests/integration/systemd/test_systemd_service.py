"""trainerd as a service of a real systemd: installed from the tree, started, killed, stopped, upgraded,
removed.

One machine for all, and one job that lives through all of it: the tests are its chapters and run in their
order. At its end it equals a run that nobody disturbed, to the last bit.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.integration.systemd.machine import REPOSITORY, Machine, wait_for, why_not
from tests.support.training_runs import result_of, train

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.timeout(240),
]

UNIT = "/usr/local/lib/systemd/system/trainerd.service"
UNIT_CGROUP = "/sys/fs/cgroup/system.slice/trainerd.service"
RUN = "/var/lib/trainerd/runs/long"
PACE = "/srv/pace"
PACE_S = 0.8
"""Slow enough for the job to live through all chapters, on a busy machine too."""
PACED = REPOSITORY / "tests" / "support" / "scripts" / "paced_tiny.py"
ARGUMENTS = ("--epochs", "6", "--batches", "60")
INSTALL_LIMIT_S = 400

WHEELS = "/srv/wheels"


def python_for_service() -> str:
    """Return an interpreter of the version that the wheels are for, the system's own if it will do."""
    version = "import sys, ensurepip, venv; print(*sys.version_info[:2])"
    system = subprocess.run(["/usr/bin/python3", "-c", version], capture_output=True, text=True, check=False)
    if system.stdout.split() == [str(number) for number in sys.version_info[:2]]:
        return "/usr/bin/python3"
    return f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """What the service needs, fetched here: the machine has no network."""
    folder = tmp_path_factory.mktemp("wheels")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["daemon"]]
    fetch = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
    ]
    done = subprocess.run(
        [*fetch, "-c", REPOSITORY / "constraints.txt", "setuptools>=77", "wheel", *needed],
        capture_output=True,
        text=True,
        timeout=INSTALL_LIMIT_S,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the packages of the service cannot be fetched: {done.stderr[-300:]}")
    return folder


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
        yield machine
    finally:
        machine.remove()


def make(machine: Machine, what: str) -> str:
    flags = f"PIP_FLAGS=--no-index --find-links {WHEELS}"
    python = f"PYTHON={python_for_service()}"
    return machine.run("make", "-C", REPOSITORY, what, python, flags, limit_s=INSTALL_LIMIT_S)


def set_pace(machine: Machine, step_s: float) -> None:
    machine.write(f"{PACE}.new", str(step_s))
    machine.path(f"{PACE}.new").replace(machine.path(PACE))


def submit_long(machine: Machine) -> None:
    """Drop the spec of the job that lives through all of it, as root would by `cp`."""
    spec = {
        "command": ["python", str(PACED), *ARGUMENTS],
        "python": sys.executable,
        "workdir": "/srv",
        "env": {"OMP_NUM_THREADS": "1", "PACE": PACE},
        "checkpoint": {"every": {"steps": 10, "epochs": 1}, "keep_last": 2},
        "grace": 30,
    }
    machine.write("/var/lib/trainerd/jobs/long.json", json.dumps(spec))


def log_lines(machine: Machine) -> list[dict]:
    """Return the journal's lines of the service, read as `journalctl -u trainerd -o cat | jq` does."""
    return [json.loads(line) for line in journal(machine).splitlines()]


def journal(machine: Machine, *more: str) -> str:
    return machine.run("journalctl", "--unit", "trainerd", "--output", "cat", "--boot", *more)


def set_drop_in(machine: Machine, text: str) -> None:
    path = "/etc/systemd/system/trainerd.service.d/test.conf"
    if text:
        machine.write(path, f"[Service]\n{text}\n")
    else:
        machine.path(path).unlink()
        machine.path(path).parent.rmdir()
    machine.run("systemctl", "daemon-reload")


def main_pid(machine: Machine) -> int:
    return int(machine.property("MainPID"))


def wait_new_main(machine: Machine, old: int) -> int:
    """Wait until a new supervisor is up; return its process id."""

    def look() -> int | None:
        pid = main_pid(machine)
        return pid if pid not in {0, old} and machine.property("ActiveState") == "active" else None

    return wait_for(
        look,
        lambda: f"a supervisor after {old}: {machine.run('systemctl', 'status', 'trainerd', check=False)}",
    )


def leftovers(machine: Machine) -> str:
    """Return what runs of the service, by process id."""
    return "".join(path.read_text() for path in machine.path(UNIT_CGROUP).rglob("cgroup.procs"))


def cgroups(machine: Machine) -> list[str]:
    """Return the names of the cgroups that attempts have below the service's own."""
    return sorted(path.name for path in machine.path(UNIT_CGROUP).glob("trainerd-*"))


def test_it_installs_from_the_tree_and_starts(machine):
    """`make install`, `systemctl enable --now trainerd`, and READY has been said."""
    said = make(machine, "install")
    assert "systemctl enable --now trainerd" in said
    machine.run("systemctl", "enable", "--now", "trainerd")
    assert machine.property("ActiveState") == "active"
    assert machine.property("StatusText") == "no jobs"
    assert machine.run("stat", "-c", "%U %a", "/var/lib/trainerd/jobs").split() == ["trainerd", "750"]
    assert machine.run("stat", "-c", "%U", f"/proc/{main_pid(machine)}").strip() == "trainerd"


def test_systemd_finds_nothing_to_say_about_the_units(machine):
    assert machine.run("systemd-analyze", "verify", UNIT) == ""
    user_unit = UNIT.replace("/system/", "/user/")
    assert machine.run("env", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "--user", "verify", user_unit) == ""


def test_the_readme_has_the_score_that_systemd_gives(machine):
    said = machine.run("systemd-analyze", "security", "--no-pager", "trainerd.service")
    score = re.search(r"Overall exposure level for trainerd.service: ([\d.]+ \w+)", said)[1]
    assert f"**{score}**" in (REPOSITORY / "systemd" / "README.md").read_text()


def test_dropping_a_spec_is_submitting_and_the_journal_is_json(machine):
    set_pace(machine, PACE_S)
    submit_long(machine)
    machine.wait_running("long", beyond_step=0)
    lines = log_lines(machine)
    assert [line["event"] for line in lines].count("supervisor.ready") == 1
    assert any(line.get("job") == "long" for line in lines)
    wait_for(lambda: machine.property("StatusText") == "1 running", "systemd to be told of the job")


def test_an_attempt_has_a_cgroup_below_that_of_the_service(machine):
    pids = machine.wait_running("long")["pids"]
    (name,) = cgroups(machine)
    assert name.startswith("trainerd-long-1-")
    for pid in pids:
        membership = machine.run("cat", f"/proc/{pid}/cgroup")
        assert f"0::/system.slice/trainerd.service/{name}\n" in membership


def test_training_does_not_notice_that_the_supervisor_is_killed(machine):
    before, main = machine.wait_running("long"), main_pid(machine)
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "trainerd")
    wait_new_main(machine, main)
    after = machine.wait_running("long", beyond_step=before["step"])
    assert (after["pids"], after["attempt"]) == (before["pids"], 1)
    assert len(cgroups(machine)) == 1, "systemd took away what a new start found below the service"
    assert machine.property("NRestarts") == "1"


def test_reload_keeps_the_process_and_disturbs_no_job(machine):
    before, main = machine.wait_running("long"), main_pid(machine)
    machine.run("systemctl", "reload", "trainerd")
    assert "supervisor.reloading" in journal(machine)
    assert main_pid(machine) == main
    assert machine.property("ActiveState") == "active"
    after = machine.wait_running("long", beyond_step=before["step"])
    assert (after["pids"], after["attempt"]) == (before["pids"], 1)


def test_a_reload_that_is_refused_fails_and_all_goes_on(machine):
    settings, main = "/etc/trainerd/trainerd.toml", main_pid(machine)
    sound = machine.path(settings).read_text()
    machine.write(settings, "[limits]\nmax_jbos = 3\n")
    said = machine.run("systemctl", "reload", "trainerd", check=False)
    machine.write(settings, sound)
    assert "failed" in said
    assert machine.property("ActiveState") == "active"
    assert main_pid(machine) == main
    assert "trainerd.toml:2: limits.max_jbos" in journal(machine)
    machine.wait_running("long")


def test_an_upgrade_renews_the_supervisor_under_a_running_job(machine):
    before, main = machine.wait_running("long"), main_pid(machine)
    version = REPOSITORY / "daemon" / "trainerd" / "version.py"
    newer = re.sub(r'"\d[^"]*"', '"9.9.9"', version.read_text())
    machine.write(str(version), newer)
    make(machine, "install")
    assert machine.run("trainerd", "--version").split()[-1] == "9.9.9"
    assert main_pid(machine) == main
    assert machine.ask("/v1/daemon")["version"] == "9.9.9"
    after = machine.wait_running("long", beyond_step=before["step"])
    assert (after["pids"], after["attempt"]) == (before["pids"], 1)
    machine.write(str(version), version.read_text())


def test_a_hung_supervisor_is_replaced_and_training_does_not_notice(machine):
    set_drop_in(machine, "WatchdogSec=4s\nTimeoutAbortSec=1s")
    old = main_pid(machine)
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "trainerd")
    main = wait_new_main(machine, old)  # this one is watched as the drop-in says
    before = machine.wait_running("long")
    machine.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", "trainerd")
    wait_new_main(machine, main)
    after = machine.wait_running("long", beyond_step=before["step"])
    assert (after["pids"], after["attempt"]) == (before["pids"], 1)
    assert "Watchdog timeout" in journal(machine)
    set_drop_in(machine, "")


def test_sigterm_to_the_main_process_drains_and_nothing_stays(machine):
    """`systemctl kill -s TERM --kill-whom=main`: it leaves of its own will, and systemd leaves it at that."""
    machine.run("systemctl", "kill", "-s", "TERM", "--kill-whom=main", "trainerd")
    wait_for(lambda: machine.property("ActiveState") == "inactive", "the supervisor to leave")
    assert machine.property("Result") == "success"
    assert (leftovers(machine), cgroups(machine)) == ("", [])
    machine.run("systemctl", "start", "trainerd")
    ending = machine.outcomes("long")[-1]
    assert (ending["kind"], ending["checkpoint"]) == ("drained", f"step-{ending['step']:09d}")
    assert machine.wait_running("long", beyond_step=ending["step"])["attempt"] == 2


def test_a_stop_is_given_the_time_that_its_jobs_need(machine):
    """TimeoutStopSec is less than one step takes: it is extended, and the job drained with proof."""
    set_drop_in(machine, "TimeoutStopSec=1s")
    step = machine.wait_running("long")["step"]
    set_pace(machine, 5)
    machine.wait_running("long", beyond_step=step)  # the next step is a long one
    began_s = time.monotonic()
    machine.run("systemctl", "stop", "trainerd")
    assert time.monotonic() - began_s > 2
    assert machine.property("Result") == "success"
    assert (leftovers(machine), cgroups(machine)) == ("", [])
    set_drop_in(machine, "")
    set_pace(machine, PACE_S)
    machine.run("systemctl", "start", "trainerd")
    ending = machine.outcomes("long")[-1]
    assert (ending["kind"], ending["checkpoint"]) == ("drained", f"step-{ending['step']:09d}")
    machine.wait_running("long", beyond_step=ending["step"])


def test_the_limit_of_memory_ends_a_job_and_not_the_supervisor(machine):
    controllers = machine.path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    if "memory" not in controllers:
        pytest.skip("the memory controller of cgroup v2 is not to be had here")
    main = main_pid(machine)
    machine.run("systemctl", "set-property", "--runtime", "trainerd", "MemoryMax=1500M", "MemorySwapMax=0")
    hog = "import mmap\nheld = []\nwhile True: held.append(bytearray(b'x' * 50_000_000))"
    spec = {"command": ["python", "-c", hog], "python": "/usr/bin/python3", "restart": {"budget": 0}}
    machine.write("/var/lib/trainerd/jobs/hog.json", json.dumps(spec))
    machine.wait_state("hog", "parked")
    assert machine.outcomes("hog")[-1]["kind"] == "out-of-memory"
    assert main_pid(machine) == main
    machine.run("systemctl", "set-property", "--runtime", "trainerd", "MemoryMax=", "MemorySwapMax=")
    machine.path("/var/lib/trainerd/jobs/hog.json").unlink()


@pytest.mark.parametrize("how", ["shut down in order", "cut off from power"])
def test_a_machine_that_comes_back_goes_on_training(machine, how):
    attempt = machine.wait_running("long")["attempt"]
    if how == "cut off from power":
        machine.cut_power()
    else:
        machine.power_off()
    machine.boot()
    after = machine.wait_running("long", beyond_step=0)
    assert after["attempt"] == attempt + 1
    kind = "lost" if how == "cut off from power" else "drained"
    assert machine.outcomes("long")[-1]["kind"] == kind


def test_after_all_of_it_the_run_equals_one_that_nobody_disturbed(machine, tmp_path):
    set_pace(machine, 0)
    machine.wait_state("long", "finished")
    pace = tmp_path / "pace"
    pace.write_text("0")
    assert train(tmp_path / "run", *ARGUMENTS, script=PACED, PACE=str(pace)).code == 0
    assert result_of(machine.path(RUN)) == result_of(tmp_path / "run")


MANAGER = """
[Service]
Type=notify
User=anne
Delegate=yes
RuntimeDirectory=anne
Environment=HOME=/home/anne XDG_RUNTIME_DIR=/run/anne
ExecStart=/lib/systemd/systemd --user
"""
AS_ANNE = "setpriv --reuid=anne --regid=anne --clear-groups env HOME=/home/anne XDG_RUNTIME_DIR=/run/anne"


def test_a_person_may_have_a_service_of_their_own(machine):
    """`systemctl --user`: started, renewed in place, and drained when the person's manager ends."""
    machine.run("useradd", "--create-home", "anne")
    machine.write("/run/systemd/system/manager.service", MANAGER)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "manager")
    user_systemctl = (*AS_ANNE.split(), "systemctl", "--user")
    machine.run(*user_systemctl, "start", "trainerd")
    state = "/home/anne/.local/state/trainerd"
    answer = machine.ask("/v1/daemon", state=state)
    assert answer["jobs_dir"] == f"{state}/jobs"
    machine.run(*user_systemctl, "reload", "trainerd")
    again = machine.ask("/v1/daemon", state=state)
    assert again["pid"] == answer["pid"]
    assert again["started_wall_s"] > answer["started_wall_s"]
    machine.run("systemctl", "stop", "manager")
    assert machine.ask("/v1/daemon", state=state) is None
    machine.run("userdel", "--remove", "anne")


def test_uninstalling_leaves_the_runs_and_nothing_else(machine):
    said = make(machine, "uninstall")
    assert "kept /var/lib/trainerd" in said
    assert (leftovers(machine), cgroups(machine)) == ("", [])
    assert machine.run("systemctl", "is-enabled", "trainerd", check=False).strip() != "enabled"
    assert machine.path(f"{RUN}/finished.json").exists()
    ours = {
        path for path in machine.changed() if "trainerd" in path and not path.startswith("/var/lib/trainerd/")
    }
    assert {path for path in ours if not path.startswith(str(REPOSITORY))} == set()
    users = {"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid"}
    known = users | {f"{path}-" for path in users} | {"/etc/.pwd.lock", "/etc/machine-id", "/etc/mtab"}
    folders = ("/etc/", "/opt/", "/usr/", "/lib/")
    changed = {path for path in machine.changed() if path.startswith(folders) and "__pycache__" not in path}
    assert changed - known == set()
