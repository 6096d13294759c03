"""Numbers on a device that is not there: a copy arrives when the device has come to it; waits are noted."""

from __future__ import annotations

import functools
import threading

import torch


class DeviceTensor(torch.Tensor):
    """A tensor whose value cannot be asked for without a wait, which fails the test."""

    def _refuse(self, *_):
        raise AssertionError("this waits for the device")

    item = tolist = cpu = numpy = __float__ = __int__ = __bool__ = __index__ = _refuse


class FakeValues:
    """See the module.

    Attributes:
        done: So many copies have arrived; `run` lets more arrive.
        started: So many copies were started.
        waits: Threads that have waited, by what was waited for.
    """

    def __init__(self):
        self.started = 0
        self.done = 0
        self.waits = []
        self.on_wait = lambda: None

    def tensor(self, value, dtype=torch.float32):
        return torch.tensor(value, dtype=dtype).as_subclass(DeviceTensor)

    def run(self, copies=None):
        """Let the device come to the next copies; to all that were started if None."""
        self.done = self.started if copies is None else self.done + copies

    def is_on_device(self, value):
        return isinstance(value, DeviceTensor)

    def batch(self):
        return _FakeBatch(self)


class _FakeBatch:
    def __init__(self, device):
        self._device = device
        self._last = 0

    def add(self, tensor):
        value = torch.Tensor.item(tensor.as_subclass(torch.Tensor).clone())
        self._device.started += 1
        self._last = self._device.started

        @functools.cache
        def read():
            assert self.has_arrived(), "read before it has arrived"
            return value

        return read

    def has_arrived(self):
        return self._device.done >= self._last

    def wait(self):
        if not self.has_arrived():
            self._device.waits.append(threading.current_thread().name)
            self._device.on_wait()
            self._device.done = max(self._device.done, self._last)
