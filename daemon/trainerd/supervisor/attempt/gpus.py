"""The GPUs of this machine, and which processes hold them.

Through NVML where its Python binding is, else files.

Thin, and for NVIDIA alone: other accelerators are configured. What cannot be found out is left out, never
guessed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any, Final, Protocol

NVML_MODULE: Final = "pynvml"
"""Of the distribution nvidia-ml-py, which many installations of torch bring along."""

DEVICES: Final = Path("/dev")
_DEVICE_PREFIX: Final = "nvidia"
_DRIVER_FILES: Final = ("nvidiactl", "dxg")


class Gpus(Protocol):
    """The GPUs of a machine."""

    def indices(self) -> tuple[int, ...]:
        """Return which there are, as CUDA_VISIBLE_DEVICES names them."""
        ...

    def holders(self, index: int) -> frozenset[int]:
        """Return the pids of the processes that hold one, as far as they can be seen."""
        ...


class DeviceFiles:
    """GPUs told from ``/dev/nvidia0`` and so on, and holders from who has one open.

    Args:
        folder: Where the device files are.
    """

    def __init__(self, folder: Path = DEVICES) -> None:
        self._folder = folder

    def indices(self) -> tuple[int, ...]:
        names = [
            path.name.removeprefix(_DEVICE_PREFIX) for path in self._folder.glob(f"{_DEVICE_PREFIX}[0-9]*")
        ]
        return tuple(sorted(int(name) for name in names if name.isdigit()))

    def holders(self, index: int) -> frozenset[int]:
        device = str(self._folder / f"{_DEVICE_PREFIX}{index}")
        names = os.listdir("/proc")  # noqa: PTH208 - names are what is wanted, thousands of times
        return frozenset(int(name) for name in names if name.isdigit() and _has_open(name, device))


def _has_open(pid: str, device: str) -> bool:
    folder = f"/proc/{pid}/fd"
    # It may have ended, or belong to another user.
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(folder):  # noqa: PTH208 - names are what is wanted, thousands of times
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{descriptor}") == device:  # noqa: PTH115 - likewise
                    return True
    return False


class Nvml:
    """GPUs as NVML tells of them, with those who hold them by a device file added.

    Args:
        nvml: The module `pynvml`, initialised.
        files: Knows of processes that have opened a device and not used it yet.
    """

    def __init__(self, nvml: Any, files: DeviceFiles) -> None:
        self._nvml = nvml
        self._files = files

    def indices(self) -> tuple[int, ...]:
        try:
            return tuple(range(self._nvml.nvmlDeviceGetCount()))
        except self._nvml.NVMLError:
            return self._files.indices()

    def holders(self, index: int) -> frozenset[int]:
        found = self._files.holders(index)
        with contextlib.suppress(self._nvml.NVMLError):
            device = self._nvml.nvmlDeviceGetHandleByIndex(index)
            for list_processes in (
                self._nvml.nvmlDeviceGetComputeRunningProcesses,
                self._nvml.nvmlDeviceGetGraphicsRunningProcesses,
            ):
                with contextlib.suppress(self._nvml.NVMLError):
                    found |= {process.pid for process in list_processes(device)}
        return found


def find_gpus() -> Gpus:
    """Return the way to the GPUs of this machine: NVML if it works, else the device files."""
    files, nvml = DeviceFiles(), load_nvml()
    return Nvml(nvml, files) if nvml is not None else files


def load_nvml() -> Any | None:
    """Return the module `pynvml`, initialised; None where there is no driver or it does not work."""
    if not any((DEVICES / name).exists() for name in _DRIVER_FILES):
        return None  # without a driver NVML is only a library to load
    try:
        nvml = importlib.import_module(NVML_MODULE)
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - a driver that is missing or broken shows in many ways, and is no reason not to start
        return None
    return nvml
