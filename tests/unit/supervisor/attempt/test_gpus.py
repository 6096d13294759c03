"""GPUs: which there are, who holds them, and that nobody of an attempt does when its slot is free again."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from trainerd.contract import records
from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.process import ProcessIdentity, boot_id, identify
from trainerd.contract.records import RanksRecord, ShimRecord
from trainerd.shim.survivors import attempt_mark
from trainerd.supervisor.attempt.gpu_release import Holding, who_holds
from trainerd.supervisor.attempt.gpus import DeviceFiles, Nvml
from trainerd.supervisor.attempt.launcher import ShimLauncher

HOLD = "import sys, time; device = open(sys.argv[1]); print(flush=True); time.sleep(1000)"


@pytest.fixture
def devices(tmp_path):
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (folder / name).touch()
    return folder


@pytest.fixture
def hold(devices):
    """Start a process that has a device open, under an attempt's mark or not."""
    processes = []

    def hold(index: int, mark: str = "") -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(devices / f"nvidia{index}")],
            stdout=subprocess.PIPE,
            env=os.environ | ({ATTEMPT_ID: mark} if mark else {}),
        )
        processes.append(process)
        assert process.stdout.readline()
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


class FakeNvml:
    """The module `pynvml`, as far as it is used."""

    class NVMLError(Exception):
        pass

    def __init__(self, compute: dict[int, list[int]], graphics: dict[int, list[int]] | None = None):
        self.compute = compute
        self.graphics = graphics or {}

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, index):  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self.compute.get(index, [])]

    def nvmlDeviceGetGraphicsRunningProcesses(self, index):  # noqa: N802
        if index not in self.graphics:
            raise self.NVMLError("not supported")
        return [SimpleNamespace(pid=pid) for pid in self.graphics[index]]


def test_devices_are_counted_by_their_files_and_nothing_else_is_one(devices):
    assert DeviceFiles(devices).indices() == (0, 1, 10)


def test_a_process_that_has_a_device_open_holds_it(devices, hold):
    holder = hold(1)
    found = DeviceFiles(devices)
    assert found.holders(1) == {holder.pid}
    assert found.holders(0) == found.holders(10) == frozenset()


def test_nvml_adds_whom_it_knows_and_its_refusals_are_no_answers(devices, hold):
    holder = hold(0)
    found = Nvml(FakeNvml({0: [4242]}), DeviceFiles(devices))
    assert found.indices() == (0, 1)
    assert found.holders(0) == {holder.pid, 4242}
    assert found.holders(1) == frozenset()


def test_only_those_of_the_attempt_are_counted(devices, hold):
    ours, theirs = hold(0, "mark-1"), hold(0, "mark-2")
    rank = hold(1)
    found = who_holds(DeviceFiles(devices), (0, 1), mark="mark-1", ranks=[identify(rank.pid)])
    assert found == Holding(
        living=tuple(sorted((identify(ours.pid), identify(rank.pid)), key=lambda i: i.pid))
    )
    assert theirs.poll() is None


def test_a_rank_that_is_gone_and_still_named_by_the_driver_is_waited_for():
    process = subprocess.Popen(["true"])
    who = identify(process.pid)
    process.wait()
    gpus = Nvml(FakeNvml({0: [process.pid, 999_999_999]}), DeviceFiles())
    assert who_holds(gpus, (0,), mark="x", ranks=[who]) == Holding(gone=(process.pid,))


def test_whoever_of_the_attempt_holds_its_gpu_is_ended_and_strangers_are_not(devices, hold, tmp_path):
    paths = AttemptPaths(tmp_path / "attempt")
    paths.root.mkdir()
    shim = ProcessIdentity(1, 0, boot_id())
    records.write(paths.shim, ShimRecord(shim, 0.0))
    records.write(paths.ranks, RanksRecord(()))
    ours, theirs = hold(0, attempt_mark(paths.root, shim)), hold(0)
    launcher = ShimLauncher(gpus=DeviceFiles(devices))
    assert launcher.release_gpus(paths, (0,)) == Holding()
    assert ours.wait(10) < 0
    assert theirs.poll() is None
