"""Large memory of the process, and what a forked child has of it."""

from __future__ import annotations

import mmap
import os

from trainerd.checkpoint import host_memory as host_memory_module
from trainerd.checkpoint.host_memory import host_memory

SIZE = 64 << 20


def code_of_child(act) -> int:
    child = os.fork()
    if child == 0:
        try:
            os._exit(act())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_finds_zeros():
    memory = host_memory(SIZE)
    memory[0] = 7
    assert code_of_child(lambda: memory[0]) == 0
    assert memory[0] == 7


def test_what_a_child_maps_is_not_unmapped_with_the_memory_that_it_inherits():
    """Workers of a loader died of SIGSEGV: their own memory lay where that of a former session had been."""
    held = [host_memory(SIZE)]

    def act() -> int:
        blocks = [mmap.mmap(-1, SIZE // 2) for _ in range(6)]  # some of them where there is a hole
        held.clear()
        for block in blocks:
            block[0] = 1
        return 0

    assert code_of_child(act) == 0


def test_a_kernel_that_cannot_wipe_keeps_the_memory_from_children():
    asked = []

    class Sandboxed(mmap.mmap):
        def madvise(self, option, *_range):
            asked.append(option)
            if option == host_memory_module._WIPE_ON_FORK:
                raise OSError(22, "Invalid argument")

    host_memory_module.host_memory_of(Sandboxed, 4096)
    assert asked[-1] == mmap.MADV_DONTFORK
