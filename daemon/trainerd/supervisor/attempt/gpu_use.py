"""How busy the GPUs of a job are and how much of their memory is taken, as NVML tells it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainerd.supervisor.attempt.gpus import load_nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    UseReader = Callable[[Iterable[int]], "tuple[GpuUse, ...]"]


@dataclass(frozen=True)
class GpuUse:
    """Use of one GPU, by all processes on it.

    Attributes:
        index: Which one, as NVML numbers them.
        busy_share: Part of the last second or so in which it computed, from 0 to 1; None if not known.
        memory_bytes: Memory that is taken; None if not known.
        memory_bytes_max: Memory that it has; None if not known.
    """

    index: int
    busy_share: float | None = None
    memory_bytes: int | None = None
    memory_bytes_max: int | None = None


class GpuUseReader:
    """Reads the use of GPUs; where NVML does not work there is none to read.

    Args:
        load: Returns the module `pynvml`, initialised, or None; called at the first need.
    """

    def __init__(self, load: Callable[[], Any | None] = load_nvml) -> None:
        self._load = load
        self._is_loaded = False
        self._nvml: Any = None

    def read(self, indices: Iterable[int]) -> tuple[GpuUse, ...]:
        """Return the use of some GPUs; those of which nothing is known are left out. Blocks."""
        indices = tuple(indices)
        if not indices:
            return ()  # a machine without GPUs does not look for them
        if not self._is_loaded:
            self._nvml, self._is_loaded = self._load(), True
        if self._nvml is None:
            return ()
        found = (self._of(index) for index in indices)
        return tuple(each for each in found if each is not None)

    def _of(self, index: int) -> GpuUse | None:
        nvml = self._nvml
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:
            return None
        busy_share = memory_bytes = memory_bytes_max = None
        with contextlib.suppress(nvml.NVMLError):  # a device that is divided (MIG) has none
            busy_share = nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
        with contextlib.suppress(nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
            memory_bytes, memory_bytes_max = int(memory.used), int(memory.total)
        if busy_share is None and memory_bytes is None:
            return None
        return GpuUse(index, busy_share, memory_bytes, memory_bytes_max)
