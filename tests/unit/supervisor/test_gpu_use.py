"""Use of GPUs as NVML tells it, here a fake one; what is not known is left out."""

from __future__ import annotations

from types import SimpleNamespace

from trainerd.supervisor.attempt.gpu_use import GpuUse, GpuUseReader


class FakeNvml:
    """Three devices: an ordinary one, one that is divided (no utilization), and one that is lost."""

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802 - NVML's own names
        if index > 1:
            raise self.NVMLError
        return index

    def nvmlDeviceGetUtilizationRates(self, device):  # noqa: N802
        if device == 1:
            raise self.NVMLError
        return SimpleNamespace(gpu=87, memory=12)

    def nvmlDeviceGetMemoryInfo(self, _device):  # noqa: N802
        return SimpleNamespace(used=10 << 30, total=80 << 30, free=70 << 30)


def test_what_is_known_of_each_gpu_is_read():
    assert GpuUseReader(FakeNvml).read((0, 1, 2)) == (
        GpuUse(0, 0.87, 10 << 30, 80 << 30),
        GpuUse(1, None, 10 << 30, 80 << 30),
    )


def test_without_nvml_there_is_nothing_and_it_is_looked_for_once():
    looked = []
    reader = GpuUseReader(lambda: looked.append(1))
    assert reader.read((0,)) == reader.read((0, 1)) == ()
    assert looked == [1]


def test_a_job_without_gpus_does_not_look_for_nvml():
    looked = []
    assert GpuUseReader(lambda: looked.append(1)).read(()) == ()
    assert looked == []
