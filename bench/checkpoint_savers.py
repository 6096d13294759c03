"""The ways to save that are compared: one class each, all with the same four methods.

    stall()    begins a save and returns when the loop may go on
    settle()   returns when what was begun is durable, as far as this way to save makes it so
    load()     reads the newest save back into memory
    close()    ends what was begun

Lightning and Ignite are optional: pip install 'trainerd[bench]'. So is torch_checkpointing, which is not part
of that extra, since it needs torch 2.11 or later.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.checkpoint_states import Training
from trainerd.checkpoint.staging import COMMITTED
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.state.rank_files import read_verified


class Saver:
    """A way to save. `needs` names the package without which it is left out."""

    name = ""
    needs = "torch"
    installed_by = "pip install 'trainerd[bench]'"

    def __init__(self, training: Training, folder: Path) -> None:
        self.training = training
        self.folder = folder
        self.path = folder / "state"
        folder.mkdir(parents=True)

    def stall(self) -> None:
        raise NotImplementedError

    def settle(self) -> float:
        """Return the monotonic time at which all was durable."""
        return time.perf_counter()

    def load(self) -> Any:
        return torch.load(self.path, weights_only=True)

    def close(self) -> None:
        return

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


class Trainerd(Saver):
    name = "trainerd"

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        self.checkpointer = Checkpointer(folder, training.objects, keep_last=1).open()
        self.step = 0
        self.committed_s = 0.0

    def stall(self) -> None:
        self.step += 1
        COMMITTED.hit = self._note  # type: ignore[method-assign]
        self.checkpointer.save(step=self.step)

    def _note(self) -> None:
        self.committed_s = time.perf_counter()

    def settle(self) -> float:
        self.checkpointer.wait()  # the read-back and the removal of the former one, too
        return self.committed_s

    def load(self) -> Any:
        newest = self.checkpointer.newest
        assert newest is not None
        return read_verified(newest, 0)

    def close(self) -> None:
        self.checkpointer.close()


class TorchSave(Saver):
    name = "torch.save + fsync"

    def stall(self) -> None:
        with self.path.open("wb") as file:
            torch.save(self.training.state(), file)
            file.flush()
            os.fsync(file.fileno())


class Safetensors(Saver):
    name = "safetensors + fsync"
    needs = "safetensors"

    def stall(self) -> None:
        from safetensors.torch import save_file

        save_file(self.training.tensors(), self.path)
        sync_file(self.path)

    def load(self) -> Any:
        from safetensors.torch import load_file

        return {name: tensor.clone() for name, tensor in load_file(self.path).items()}


class DcpSave(Saver):
    name = "DCP save"

    def stall(self) -> None:
        import torch.distributed.checkpoint as dcp

        dcp.save(self.training.state(), checkpoint_id=self.path, no_dist=True)

    def load(self) -> Any:
        import torch.distributed.checkpoint as dcp

        state = _emptied(self.training.state())
        dcp.load(state, checkpoint_id=self.path, no_dist=True)
        return state


class DcpAsyncSave(DcpSave):
    name = "DCP async_save"

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        if not torch.distributed.is_initialized():
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        self.pending: Any = None
        self.done_s = 0.0

    def stall(self) -> None:
        import torch.distributed.checkpoint as dcp

        self.pending = dcp.async_save(self.training.state(), checkpoint_id=self.path)
        self.pending.add_done_callback(lambda _: self._note())

    def _note(self) -> None:
        self.done_s = time.perf_counter()

    def settle(self) -> float:
        self.pending.result()
        return self.done_s or time.perf_counter()


class TorchCheckpointing(Saver):
    """Meta's `torch_checkpointing`, which writes in a process of its own.

    It is asked for what works on a CPU and is exact in a loop that goes on at once: the copy is complete when
    `save` returns, and files are written without O_DIRECT, which version 0.1.1 cannot do where the sizes of
    its writes are not multiples of a block.
    """

    name = "torch_checkpointing"
    needs = "torch_checkpointing"
    installed_by = "pip install torch_checkpointing"

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        # This process is a daemon, so that it never outlives the benchmark; it may have a child all the same.
        multiprocessing.current_process().daemon = False
        from torch_checkpointing import AsyncCheckpointSaverConfig, CheckpointManager, CheckpointStagerConfig
        from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

        self.manager = CheckpointManager.Config(
            save=AsyncCheckpointSaverConfig(staging_config=CheckpointStagerConfig(use_async_staging=False)),
            storage_config=LocalFileSystemStorageConfig(use_direct_io=False),
        ).build()
        self.step = 0
        self.pending: Any = None

    def stall(self) -> None:
        self.step += 1
        self.path = self.folder / f"step-{self.step}"  # it replaces no checkpoint
        self.pending = self.manager.save(str(self.path), self.training.state())

    def settle(self) -> float:
        self.pending.result()
        for path in self.path.iterdir():
            sync_file(path)  # it does not
        done_s = time.perf_counter()
        remove(self.folder / f"step-{self.step - 1}")
        return done_s

    def load(self) -> Any:
        return self.manager.load(str(self.path), into=dict.fromkeys(self.training.objects))

    def close(self) -> None:
        self.manager.close()


class Lightning(Saver):
    name = "Lightning TorchCheckpointIO"
    needs = "lightning.fabric.plugins.io.torch_io"

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        mend_torchvision()
        from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

        self.io = TorchCheckpointIO()

    def stall(self) -> None:
        self.io.save_checkpoint(self.training.state(), self.path)

    def settle(self) -> float:
        sync_file(self.path)  # Lightning does not
        return time.perf_counter()


class Ignite(Saver):
    name = "Ignite DiskSaver"
    needs = "ignite.handlers"

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        from ignite.handlers import DiskSaver

        self.saver = DiskSaver(str(folder), require_empty=False)

    def stall(self) -> None:
        self.saver(self.training.state(), self.path.name)

    def settle(self) -> float:
        sync_file(self.path)  # Ignite does not
        return time.perf_counter()


SAVERS: tuple[type[Saver], ...] = (
    Trainerd,
    TorchSave,
    Safetensors,
    DcpSave,
    DcpAsyncSave,
    TorchCheckpointing,
    Lightning,
    Ignite,
)


def available_savers() -> tuple[list[type[Saver]], list[str]]:
    """Return what can be compared here, and a line for each that cannot."""
    found: list[type[Saver]] = []
    left_out: list[str] = []
    mend_torchvision()
    for saver in SAVERS:
        try:
            importlib.import_module(saver.needs)
        except ImportError:
            left_out.append(f"{saver.name}: left out, no {saver.needs} here ({saver.installed_by})")
        except Exception as error:  # noqa: BLE001 - whatever keeps a peer from working, we go on without it
            left_out.append(f"{saver.name}: left out, {saver.needs} cannot be imported: {error}")
        else:
            found.append(saver)
    return found, left_out


def mend_torchvision() -> None:
    """Lightning imports torchvision where there is one, and dies of one that was built for another torch."""
    path = Path(__file__).parents[1] / "jobs" / "examples" / "mnist"
    sys.path.append(str(path))
    with contextlib.suppress(ImportError):
        importlib.import_module("torchvision_compat").import_torchvision()


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget_cached(files: list[Path]) -> None:
    """Have the page cache forget files, so that the next read of them is a cold one."""
    for path in files:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # pruned in the meantime
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _emptied(tree: Any) -> Any:
    """Return a state like this one with tensors of its own, for a loader that fills what it is given."""
    if isinstance(tree, torch.Tensor):
        return torch.empty_like(tree)
    if isinstance(tree, dict):
        return {key: _emptied(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_emptied(value) for value in tree]
    return tree
