"""The memory in which Python's and NumPy's global generators keep their state, copied out and in as bytes.

Loading in the main process gives every batch random streams of its own and puts the global ones back
afterwards. ``random.getstate`` and ``numpy.random.get_state`` build thousands of objects for that, a hundred
microseconds a batch; the state itself is 2.5 KB, which are copied in a fraction of one.

Invariants:
    Where a state lies is found out on generators made for that purpose, and proved on them: what was copied
    from one into another makes the second equal to the first. Where the proof fails, as on another Python or
    NumPy, the public functions are used instead.
    Only the state's own bytes are written, and only with what was read from the same place.
"""

from __future__ import annotations

import ctypes
import functools
import random
import struct
from typing import Any, Final, Protocol

_WORDS: Final = 624
_STATE_BYTES: Final = 4 * (_WORDS + 1)  # the words and the index of the next one


class GeneratorState(Protocol):
    """Where one global generator keeps its state."""

    def saved(self) -> Any:
        """Return the state as it is."""
        ...

    def put_back(self, state: Any) -> None:
        """Make the state what it was when `saved` returned `state`."""
        ...


class PythonCalls:
    """Python's generator through its public functions."""

    def saved(self) -> Any:
        return random.getstate()

    def put_back(self, state: Any) -> None:
        random.setstate(state)


class NumpyCalls:
    """NumPy's generator through its public functions."""

    def __init__(self) -> None:
        import numpy as np

        self._random = np.random

    def saved(self) -> Any:
        return self._random.get_state(legacy=False)

    def put_back(self, state: Any) -> None:
        self._random.set_state(state)


class PythonMemory:
    """Python's generator through the memory of an instance of `random.Random`.

    Args:
        generator: The instance; it is kept.
        offset: Of the index and the words in its memory, in bytes.
    """

    def __init__(self, generator: random.Random, offset: int) -> None:
        self._generator: Any = generator
        self._state = _view(id(generator) + offset, _STATE_BYTES)

    def saved(self) -> Any:
        return bytes(self._state), self._generator.gauss_next

    def put_back(self, state: Any) -> None:
        self._state[:], self._generator.gauss_next = state


class NumpyMemory:
    """NumPy's generator through the memory of its bit generator, and of the normal deviate that it keeps.

    Args:
        generator: A ``RandomState``; it is kept.
        offset: Of the flag and the kept deviate in its memory, in bytes.
    """

    def __init__(self, generator: Any, offset: int) -> None:
        self._generator = generator
        self._bits = generator._bit_generator  # noqa: SLF001 - numpy's own name for it, proved by `_is_proved`
        self._state = _view(self._bits.ctypes.state_address, _STATE_BYTES)
        self._kept = _view(id(generator) + offset, _KEPT.size)

    def saved(self) -> Any:
        return bytes(self._state), bytes(self._kept)

    def put_back(self, state: Any) -> None:
        self._state[:], self._kept[:] = state

    def is_current(self) -> bool:
        """Whether the generator still draws from the bit generator that was looked at."""
        return self._generator._bit_generator is self._bits  # noqa: SLF001 - as above


_KEPT: Final = struct.Struct("<q d")  # has_gauss, padded, and gauss


def _view(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


@functools.cache
def python_state() -> GeneratorState:
    """Return where Python's global generator keeps its state."""
    try:
        generator = random._inst  # noqa: SLF001 - whose methods the functions of the module are
        offset = _python_offset()
        if type(generator) is random.Random and offset is not None:
            return PythonMemory(generator, offset)
    except (AttributeError, TypeError, ValueError, struct.error):
        pass
    return PythonCalls()


def numpy_state() -> GeneratorState:
    """Return where NumPy's global generator keeps its state. NumPy is imported already."""
    state = _numpy_state()
    return state if not isinstance(state, NumpyMemory) or state.is_current() else NumpyCalls()


@functools.cache
def _numpy_state() -> GeneratorState:
    import numpy as np

    try:
        generator = np.random.mtrand._rand  # noqa: SLF001 - as above
        offset = _numpy_offset()
        bits = generator._bit_generator  # noqa: SLF001 - as above
        is_stock = type(generator) is np.random.RandomState and type(bits) is np.random.MT19937
        if is_stock and offset is not None:
            return NumpyMemory(generator, offset)
    except (AttributeError, TypeError, ValueError, struct.error):
        pass
    return NumpyCalls()


def _python_offset() -> int | None:
    one, other = random.Random(1), random.Random(2)  # noqa: S311 - looked at, not drawn from
    one.random()
    one.gauss(0, 1)
    words = one.getstate()[1]
    pattern = struct.pack(f"<{_WORDS}I", *words[:_WORDS])
    offset = _only_place(id(one), one.__sizeof__(), pattern)
    if offset is None:
        return None
    offset -= 4  # the index stands in front
    former, expected = other.getstate(), one.getstate()
    there, here = PythonMemory(other, offset), PythonMemory(one, offset)
    kept = there.saved()
    there.put_back(here.saved())
    is_equal = other.getstate() == expected and other.random() == one.random()
    there.put_back(kept)
    return offset if is_equal and other.getstate() == former else None


def _numpy_offset() -> int | None:
    import numpy as np

    one, other = np.random.RandomState(1), np.random.RandomState(2)
    one.standard_normal()
    pattern = _KEPT.pack(1, one.get_state(legacy=False)["gauss"])
    offset = _only_place(id(one), type(one).__basicsize__, pattern)
    if offset is None:
        return None
    former = _plain(other)
    there, here = NumpyMemory(other, offset), NumpyMemory(one, offset)
    kept = there.saved()
    there.put_back(here.saved())
    is_equal = (
        _plain(other) == _plain(one) and other.standard_normal(3).tolist() == one.standard_normal(3).tolist()
    )
    there.put_back(kept)
    return offset if is_equal and _plain(other) == former else None


def _plain(generator: Any) -> tuple[Any, ...]:
    state = generator.get_state(legacy=False)
    inner = state["state"]
    return inner["key"].tolist(), inner["pos"], state["has_gauss"], state["gauss"]


def _only_place(address: int, size: int, pattern: bytes) -> int | None:
    """Return where in that memory the pattern stands, None if not exactly once."""
    memory = ctypes.string_at(address, size)
    return memory.find(pattern) if memory.count(pattern) == 1 else None
