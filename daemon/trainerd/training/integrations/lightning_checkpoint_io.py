"""Lightning: the files of `ModelCheckpoint` and `Trainer.save_checkpoint`, durable and with digests."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.durable import make_directory
from trainerd.errors import CorruptError, UserError
from trainerd.training.integrations.digested_files import (
    check_digest,
    digest_path,
    remove_digested,
    write_digested,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_FABRICS: Final = {"pytorch_lightning": "lightning_fabric", "lightning.pytorch": "lightning.fabric"}


def _checkpoint_io_class() -> Any:
    """Return `TorchCheckpointIO` of the package that the script has imported."""
    loaded = [fabric for package, fabric in _FABRICS.items() if package in sys.modules]
    problem: ImportError | None = None
    for fabric in (*loaded, *reversed(_FABRICS.values())):
        try:
            return importlib.import_module(f"{fabric}.plugins.io").TorchCheckpointIO
        except ModuleNotFoundError as error:
            problem = problem or error
    raise ImportError("neither lightning nor pytorch_lightning is installed") from problem


class StoreCheckpointIO(_checkpoint_io_class()):  # type: ignore[misc]
    """Writes files so that a crash leaves the former one or the new one, and checks what it loads.

    ``Trainer(plugins=[StoreCheckpointIO()])``. The files are Lightning's own, in its folders and under its
    names; the digest of each lies beside the folder, in ``<folder>.digests``. Local folders only.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint durably.

        Raises:
            TypeError: There are `storage_options`, as with Lightning's own class.
            UserError: The path is that of another storage.
        """
        if storage_options is not None:
            raise TypeError("StoreCheckpointIO takes no storage_options: it writes local files")
        place = _local(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        make_directory(place.parent)
        write_digested(place, buffer.getvalue())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return a checkpoint once its file is compared with its digest.

        A file that has no digest was not written by this class, and is read as Lightning reads it.

        Args:
            path: Path of the checkpoint.
            map_location: As `torch.load` takes it.
            weights_only: As `torch.load` takes it.

        Raises:
            CorruptError: The file is not what was written.
            UserError: The path is that of another storage.
            FileNotFoundError: There is no such file.
        """
        place = _local(path)
        if not place.exists():
            raise FileNotFoundError(f"Checkpoint file not found: {path}")
        place = place.resolve()  # save_last="link"
        if digest_path(place).exists():
            try:
                check_digest(place)
            except CorruptError as error:
                raise CorruptError(
                    error.message, hint="give ckpt_path another checkpoint, or leave it out"
                ) from error
        found: dict[str, Any] = super().load_checkpoint(place, map_location, weights_only)
        return found

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its digest.

        Args:
            path: Path of the checkpoint.

        Raises:
            UserError: The path is that of another storage.
        """
        place = _local(path)
        if place.is_dir() and not place.is_symlink():
            super().remove_checkpoint(place)
        else:
            remove_digested(place)


def _local(path: str | Path) -> Path:
    text = str(path)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    if "://" in text:
        raise UserError(
            f"{text}: StoreCheckpointIO writes local files",
            hint="give ModelCheckpoint a local dirpath, or leave the plugin out",
        )
    return Path(text)
