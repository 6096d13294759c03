"""Runs a function as another user, in a process of its own."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SERVICE, NEIGHBOUR = 61234, 61235
"""Users without names."""


def as_user(uid: int, call: Callable[[], Any], groups: Sequence[int] = ()) -> Any:
    """Return what `call` returns to a user; an exception is returned as its text.

    Skips the test where the user cannot read the modules that `call` may import, as in a clone below `/root`.
    """
    if not _reads_this_code():
        pytest.skip("another user cannot read this clone of the project")
    return _as_user(uid, call, groups)


@cache
def _reads_this_code() -> bool:
    here = Path(__file__)
    return bool(_as_user(NEIGHBOUR, lambda: os.access(here, os.R_OK), ()))


def _as_user(uid: int, call: Callable[[], Any], groups: Sequence[int]) -> Any:
    answer, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                said = call()
            except BaseException as error:  # noqa: BLE001 - shown to the test
                said = f"{type(error).__name__}: {error}"
            with os.fdopen(say, "wb") as pipe:
                pipe.write(pickle.dumps(said))
        finally:
            os._exit(0)
    os.close(say)
    with os.fdopen(answer, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(data)
