"""Process identities are not fooled by reused numbers."""

import dataclasses
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from trainerd.contract import codec, process
from trainerd.contract.process import ProcessIdentity, identify, is_alive, is_elsewhere, open_pidfd


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_running_process_is_itself(child):
    identity = identify(child.pid)
    assert identity.pid == child.pid
    assert is_alive(identity)


def test_a_zombie_has_an_identity_and_is_not_alive(child):
    identity = identify(child.pid)
    pidfd = open_pidfd(identity)
    child.kill()
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    assert identify(child.pid) == identity
    assert not is_alive(identity)


def test_a_process_that_is_gone_has_none(child):
    identity = identify(child.pid)
    child.kill()
    child.wait()
    assert not is_alive(identity)
    assert open_pidfd(identity) is None


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another"}])
def test_a_stranger_with_the_same_number_is_not_it(child, change):
    stranger = dataclasses.replace(identify(child.pid), **change)
    assert not is_alive(stranger)
    assert open_pidfd(stranger) is None


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({}, False),
        ({"boot_id": "another"}, False),
        ({"boot_id": "another", "host": "n1"}, True),
        ({"boot_id": "another", "machine": "another"}, True),
        ({"boot_id": "another", "machine": ""}, True),
        ({"boot_id": "another", "host": "", "machine": ""}, False),
        ({"host": "n1", "machine": "another"}, False),
    ],
    ids=[
        "itself",
        "restarted",
        "name",
        "machine-id",
        "no machine-id",
        "old record",
        "container of this boot",
    ],
)
def test_another_boot_is_of_this_machine_only_if_name_and_machine_id_are(change, is_another):
    identity = dataclasses.replace(identify(os.getpid()), **change)
    assert is_elsewhere(identity) == is_another
    if is_another:
        with pytest.raises(OSError, match="another machine"):
            is_alive(identity)


def test_a_machine_without_a_machine_id_is_told_by_its_name(monkeypatch):
    monkeypatch.setattr(process, "machine", lambda: "")
    before = ProcessIdentity(1, 1, "another", process.host_name())
    assert not is_elsewhere(before)
    assert is_elsewhere(dataclasses.replace(before, host="n1"))


def test_an_identity_of_an_earlier_version_is_read_and_equals_that_of_now():
    now = identify(os.getpid())
    old = codec.from_plain(
        {"pid": now.pid, "start_ticks": now.start_ticks, "boot_id": now.boot_id}, ProcessIdentity
    )
    assert old == now
    assert is_alive(old)


def test_the_machine_id_itself_is_in_no_record():
    try:
        machine_id = Path("/etc/machine-id").read_text().strip()
    except OSError:
        pytest.skip("there is none")
    assert not machine_id or machine_id not in str(codec.to_plain(identify(os.getpid())))
