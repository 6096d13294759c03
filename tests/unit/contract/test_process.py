"""Process identities are not fooled by reused numbers."""

import dataclasses
import os
import select
import subprocess
import sys

import pytest

from trainerd.contract.process import identify, is_alive, open_pidfd


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
