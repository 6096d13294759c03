"""What the program that trains looks like: what a resume should find unchanged.

Taken when training begins, and kept in every manifest. `trainerd.checkpoint.fingerprint` compares two of
them.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.checkpoint.fingerprint import OPTIONS, PARAMETERS
from trainerd.training.state.machine_facts import machine_facts
from trainerd.training.state.program_options import program_options
from trainerd.training.state.shipped_code import is_shipped, shipped_code
from trainerd.training.state.tracked import Objects, unwrapped
from trainerd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CODE_FILES_MAX: Final = 200
"""So many of the program's files are told apart; of the others one digest is taken."""


def take_fingerprint(objects: Objects, *, seed: int, world_size: int) -> dict[str, Any]:
    """Return the fingerprint of this program, but for the length of its data, which only its loops show.

    Args:
        objects: What is tracked.
        seed: Of the session.
        world_size: How many ranks train together.
    """
    return {
        "code": _code(),
        "config": {"arguments": _arguments(), "seed": seed},
        "world_size": world_size,
        "precision": _precision(),
        "libraries": _libraries(),
        "machine": machine_facts(objects),
        PARAMETERS: {
            name: _parameters(module)
            for name, value in objects.items()
            if isinstance(module := unwrapped(value), torch.nn.Module)
        },
        OPTIONS: program_options(objects),
    }


def _arguments() -> list[str]:
    """Return the arguments of the script. Those of a worker of Ray are Ray's, and others in each process."""
    return [] if is_shipped() else sys.argv[1:]


def _code() -> dict[str, str]:
    """Return the digest of the script and of each module beside it or below, by its path from there."""
    if is_shipped():
        return _bounded(shipped_code())
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is None:
        return {}
    folder = Path(main).resolve().parent
    digests = {}
    for path in sorted(_own_files(folder)):
        try:
            digests[path.relative_to(folder).as_posix()] = digest_of_bytes(path.read_bytes())
        except OSError:
            continue  # run from something that is no file, or no longer one
    return _bounded(digests)


def _bounded(digests: dict[str, str]) -> dict[str, str]:
    if len(digests) > CODE_FILES_MAX:
        rest = list(digests)[CODE_FILES_MAX:]
        together = digest_of_bytes("".join(name + digests.pop(name) for name in rest).encode())
        digests[f"{len(rest)} more"] = together
    return digests


def _own_files(folder: Path) -> Iterator[Path]:
    # The virtual environment may well lie in the project's folder.
    foreign = tuple([f"{os.path.realpath(prefix)}/" for prefix in {sys.prefix, sys.base_prefix}])
    own = f"{str(folder).rstrip('/')}/"

    known: dict[str, str] = {}

    @cache  # a thousand modules lie in three hundred folders, and a start waits for this
    def is_own(parent: str) -> bool:
        try:
            real = f"{real_folder(parent, known)}/"
        except OSError:
            return False  # relative to a working folder that was deleted, as torch's "_ops.py"
        return real.startswith(own) and not real.startswith(foreign) and "/site-packages/" not in real

    seen = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if (
            not isinstance(file, str)
            or name.partition(".")[0] == "trainerd"
            or not is_own(file.rpartition(os.sep)[0])
        ):
            continue
        path = Path(os.path.realpath(file))
        if path not in seen and is_own(str(path.parent)):  # a link may lead out
            seen.add(path)
            yield path


def real_folder(folder: str, known: dict[str, str]) -> str:
    """Return what `os.path.realpath` does, looking once at each folder for all that lie below it.

    Args:
        folder: A path.
        known: What was found by earlier calls.
    """
    if folder not in known:
        above, name = os.path.split(folder)
        if not name or name in {".", ".."} or not folder.startswith("/"):
            known[folder] = os.path.realpath(folder)
        else:
            path = os.path.join(real_folder(above, known), name)  # noqa: PTH118 - hundreds of times at each start
            known[folder] = os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114 - likewise
    return known[folder]


def _precision() -> dict[str, Any]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    newer: Any = cudnn  # its types do not know the newer interface
    return {
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32_matmul": _asked(
            torch.get_float32_matmul_precision, lambda: f"fp32_precision {matmul.fp32_precision}"
        ),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_tf32": _asked(
            lambda: cudnn.allow_tf32,
            lambda: f"fp32_precision conv {newer.conv.fp32_precision}, rnn {newer.rnn.fp32_precision}",
        ),
        "cudnn_deterministic": cudnn.deterministic,
        "cudnn_enabled": cudnn.enabled,
        "matmul_tf32": _asked(lambda: matmul.allow_tf32, lambda: f"fp32_precision {matmul.fp32_precision}"),
        "fp16_reduced_precision": str(matmul.allow_fp16_reduced_precision_reduction),
        "bf16_reduced_precision": str(matmul.allow_bf16_reduced_precision_reduction),
    }


def _asked(setting: Callable[[], object], instead: Callable[[], str]) -> Any:
    """Return a setting; what torch has in its place if a program has set it by the newer interface.

    torch then raises for the older one.
    """
    try:
        return setting()
    except RuntimeError:
        return instead()


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__, "trainerd": VERSION}
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    for name in ("numpy", "torchvision", "transformers", "datasets", "lightning"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return {name: str(version) for name, version in found.items()}


def _parameters(module: torch.nn.Module) -> dict[str, Any]:
    lines = [
        f"{name} {str(parameter.dtype).removeprefix('torch.')} {_shape(parameter)}\n"
        for name, parameter in module.named_parameters()
    ]
    return {"count": len(lines), "digest": digest_of_bytes("".join(lines).encode())}


def _shape(parameter: torch.Tensor) -> str:
    is_lazy = torch.nn.parameter.is_lazy(parameter)
    return "not initialised" if is_lazy else str(list(parameter.shape))
