"""A checkpoint's model as a plain file, for those who only want to use it.

No trainerd is needed to read it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from trainerd.checkpoint.safetensors import layout
from trainerd.contract.durable import TEMPORARY_INFIX, sync_directory, translated_space_errors
from trainerd.contract.failpoints import declare
from trainerd.errors import UnsupportedValueError, UserError
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.tensor_dtypes import SAFETENSORS_DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from trainerd.checkpoint.store import Checkpoint

EXPORT_SYNCED = declare(
    "export.synced", "a complete temporary file beside the exported one; remove it by hand"
)

SUFFIXES: Final = (".pt", ".pth", ".safetensors")
_DEFAULT_NAME: Final = "model"
_serial = itertools.count()


def model_state(checkpoint: Checkpoint, name: str | None = None) -> dict[str, Any]:
    """Return the state of a module in a checkpoint, verified as it is read.

    Args:
        checkpoint: The checkpoint to export.
        name: What it is tracked as; ``model``, or the only module there is, if not given.

    Raises:
        UserError: There is no such module, or several and none is named.
        CorruptError: The checkpoint does not verify.
    """
    tree = read_verified(checkpoint, 0)
    if name is None:
        name = tree.modules[0] if len(tree.modules) == 1 else _DEFAULT_NAME
    if name not in tree.modules:
        raise UserError(
            f"{checkpoint.name} holds no module {name!r}",
            hint=f"its modules are: {', '.join(tree.modules) or 'none'}; name one with --object, or "
            "take --all",
        )
    state: dict[str, Any] = tree.objects[name]
    return state


def whole_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return everything that was tracked under the keys of tutorials, such as ``model_state_dict``.

    Raises:
        CorruptError: The checkpoint does not verify.
    """
    objects = read_verified(checkpoint, 0).objects
    states = {f"{name}_state_dict": _without_numpy(state) for name, state in objects.items()}
    return {"step": checkpoint.step, "epochs_done": checkpoint.manifest.epoch, **states}


def export_state(state: dict[str, Any], path: Path, *, replace: bool = False) -> None:
    """Write a state as one file, durably: for ``torch.load(weights_only=True)``, or as safetensors.

    The file is read back before it gets its name.

    Raises:
        UserError: The name ends in another way than those of `SUFFIXES`, the file exists and is not to be
            replaced, or it cannot hold this state.
        SpaceError: The disk is full or read-only.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: what kind of file is that?", hint=f"let the name end in {' or '.join(SUFFIXES)}"
        )
    if path.exists() and not replace:
        raise UserError(f"{path} exists already", hint="choose another name, or replace it with --force")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}")
    if path.suffix == ".safetensors":
        tensors = _only_tensors(state)
        with _made_durable(path) as file:
            _write_safetensors(tensors, file)
    else:
        with _made_durable(path) as file:
            torch.save(state, file)
            file.flush()
            _check_loads(Path(file.name), path)


@contextlib.contextmanager
def _made_durable(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write into that takes the place of `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}{TEMPORARY_INFIX}{os.getpid()}-{next(_serial)}")
    with translated_space_errors(path):
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            EXPORT_SYNCED.hit()
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def _check_loads(written: Path, path: Path) -> None:
    try:
        torch.load(written, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever it is, the file is of no use
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{path}: torch.load(weights_only=True) would refuse it: {reason}",
            hint="export the model alone, or keep to numbers, strings, lists, dicts and tensors in the state",
        ) from error


def _only_tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    for name, value in state.items():
        is_plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
        if not is_plain or value.dtype not in SAFETENSORS_DTYPES:
            raise UnsupportedValueError(
                name, value, hint="a safetensors file holds plain tensors only: export a .pt"
            )
    return state


def _write_safetensors(tensors: dict[str, torch.Tensor], file: BinaryIO) -> None:
    header, entries = layout(
        [(name, SAFETENSORS_DTYPES[value.dtype], tuple(value.shape)) for name, value in tensors.items()],
        {"format": "pt"},
    )
    file.write(header)
    for entry in entries:
        if entry.end > entry.begin:
            octets = tensors[entry.name].detach().contiguous().reshape(-1).view(torch.uint8)
            file.write(octets.numpy().data)


def _without_numpy(tree: Any) -> Any:
    """Replace arrays by tensors and NumPy's numbers by Python's: weights_only knows neither."""
    kind = type(tree)
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(tree)
    if isinstance(tree, np.generic):
        return tree.item()
    if kind in {dict, OrderedDict}:
        return kind((_without_numpy(key), _without_numpy(value)) for key, value in tree.items())
    if kind is defaultdict:
        return {_without_numpy(key): _without_numpy(value) for key, value in tree.items()}
    if kind in {list, tuple}:
        return kind(_without_numpy(item) for item in tree)
    return tree
