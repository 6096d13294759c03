"""Digests of code that a worker was sent as objects, and has no script of: what Ray runs in its workers.

The functions are found on the stack, and among the globals of those: a pickle by value brings along just the
globals that it names. Modules that the worker imported count by their files.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.checkpoint.digest import digest_of_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORKER_OF_RAY: Final = "/ray/_private/workers/default_worker.py"


def is_shipped() -> bool:
    """Tell whether this process is a worker whose script is the engine's."""
    return bool(sys.argv) and sys.argv[0].endswith(_WORKER_OF_RAY)


def shipped_code() -> dict[str, str]:
    """Return a digest of each function and class of the user's on this thread's stack, and of each module.

    Names are those of the module and of the function: the folder may differ from attempt to attempt.
    """
    found: dict[str, str] = {}
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to it
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name != "<module>" and _is_own(module, frame.f_code.co_filename):
            found[f"{module}:{frame.f_code.co_qualname}"] = digest_of_code(frame.f_code)
            for value in list(frame.f_globals.values()):
                found.update(_digests_of(value))
        frame = frame.f_back
    for name, imported in list(sys.modules.items()):
        file = getattr(imported, "__file__", None)
        if isinstance(file, str) and name != "__main__" and _is_own(name, file):
            try:
                found[name] = digest_of_bytes(Path(file).read_bytes())
            except OSError:
                continue  # removed since it was imported
    return found


def digest_of_code(code: types.CodeType) -> str:
    """Return a digest of what a function does: of its code, not of its place in a file."""
    return digest_of_bytes("\n".join(_facts(code)).encode())


def _digests_of(value: Any) -> Iterator[tuple[str, str]]:
    module = getattr(value, "__module__", None)
    if not isinstance(module, str):
        return
    if isinstance(value, types.FunctionType):
        if _is_own(module, value.__code__.co_filename):
            yield f"{module}:{value.__qualname__}", digest_of_code(value.__code__)
    elif isinstance(value, type) and _is_own(module, ""):
        for part in list(vars(value).values()):
            plain = getattr(part, "__func__", None) or getattr(part, "fget", None) or part
            if isinstance(plain, types.FunctionType) and _is_own(module, plain.__code__.co_filename):
                yield f"{module}:{plain.__qualname__}", digest_of_code(plain.__code__)


def _is_own(module: str, file: str) -> bool:
    """Tell whether a module is the user's: neither installed, nor of Python, nor the engine's or ours."""
    top = module.partition(".")[0]
    is_of_python = top in sys.stdlib_module_names and top != "__main__"
    is_installed = "/site-packages/" in file or "/dist-packages/" in file
    is_below = file.startswith((f"{sys.prefix}/", f"{sys.base_prefix}/", "<frozen"))
    return not (is_of_python or is_installed or is_below) and top not in {"trainerd", "ray", "torch"}


def _facts(code: types.CodeType) -> Iterator[str]:
    yield repr((code.co_name, code.co_argcount, code.co_kwonlyargcount, code.co_flags))
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    yield code.co_code.hex()
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _facts(each)
        elif isinstance(each, frozenset):  # in no order
            yield repr(sorted([f"{type(part).__name__} {part!r}" for part in each]))
        else:
            yield f"{type(each).__name__} {each!r}"
