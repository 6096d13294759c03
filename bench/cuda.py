"""What a save costs on a CUDA device, beside torch.save, DCP and what the hardware allows.

    python -m bench.cuda                       # a GPT of 354 M parameters with AdamW, state 4.25 GB
    python -m bench.cuda --device cpu --width 64 --layers 2 --pairs 1     # a rehearsal without a device

Columns: the call, what the loop loses over a window of steps, and when the checkpoint is durable, each the
median of pairs of windows of which one saves. A window without a save precedes or follows each with one, in
turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import trainerd
from trainerd.training.state.rank_files import read_verified, tensors_name

VOCABULARY = 50304
LIMIT_BYTES_MAX = 2 << 30
"""Of what is copied and written to learn the limits."""
PIECE_BYTES = 64 << 20
LOGGED_STEPS = 50


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        query, key, value = (
            each.view(batch, length, 16, width // 16).transpose(1, 2)
            for each in self.qkv(self.norm_1(x)).split(width, 2)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm_2(x))


class Gpt(nn.Module):
    """A small GPT."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.embedding.weight)


class Trained:
    """A model in training on one device."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.device: str = arguments.device
        self.model = Gpt(arguments.width, arguments.layers).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.batch = (8, 513) if self.device == "cuda" else (1, 17)

    def step(self) -> torch.Tensor:
        tokens = torch.randint(0, VOCABULARY, self.batch, device=self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            logits = self.model(tokens[:, :-1]).flatten(0, 1).float()
            loss = functional.cross_entropy(logits, tokens[:, 1:].flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def state_bytes(self) -> int:
        moments = [each for state in self.optimizer.state.values() for each in state.values()]
        return sum(each.nbytes for each in (*self.model.parameters(), *moments))


class Way:
    """A way to save."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        self.trained = trained
        self.folder = folder

    def save(self, number: int) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        """Return when what was saved is durable."""

    def close(self) -> None:
        """End what was begun."""


class Ours(Way):
    """trainerd.Checkpointer."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        super().__init__(trained, folder)
        objects = {"model": trained.model, "optimizer": trained.optimizer}
        self.checkpointer = trainerd.Checkpointer(folder / "checkpoints", objects, keep_last=1)

    def save(self, number: int) -> None:
        self.checkpointer.save(step=number)

    def wait(self) -> None:
        self.checkpointer.wait()

    def close(self) -> None:
        self.checkpointer.close()


class TorchSave(Way):
    """torch.save and an fsync."""

    def save(self, number: int) -> None:
        del number
        with (self.folder / "state.pt").open("wb") as file:
            torch.save(self.trained.state(), file)
            file.flush()
            os.fsync(file.fileno())


class DcpAsync(Way):
    """torch.distributed.checkpoint.async_save, with its files synced."""

    def __init__(self, trained: Trained, folder: Path, *, is_pinned: bool = False) -> None:
        super().__init__(trained, folder)
        self.pending: Any = None
        self.options: dict[str, Any] = {}
        if is_pinned:
            from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

            self.options["async_stager"] = DefaultStager(
                StagingOptions(
                    use_pinned_memory=True,
                    use_shared_memory=False,
                    use_async_staging=True,
                    use_non_blocking_copy=True,
                )
            )

    def save(self, number: int) -> None:
        import torch.distributed.checkpoint as dcp

        del number
        self.wait()
        writer = dcp.FileSystemWriter(str(self.folder / "dcp"), overwrite=True, sync_files=True)
        found = dcp.async_save(self.trained.state(), storage_writer=writer, no_dist=True, **self.options)
        if hasattr(found, "staging_completion"):
            found.staging_completion.result()
            found = found.upload_completion
        self.pending = found

    def wait(self) -> None:
        if self.pending is not None:
            self.pending.result()
            self.pending = None


class DcpPinned(DcpAsync):
    """The same, staged through page-locked memory."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        super().__init__(trained, folder, is_pinned=True)


WAYS: dict[str, type[Way]] = {
    "trainerd": Ours,
    "torch.save + fsync": TorchSave,
    "DCP async_save": DcpAsync,
    "DCP async_save, pinned": DcpPinned,
}


def measured(trained: Trained, way: Way, *, pairs: int, window: int) -> tuple[float, float, float]:
    """Return medians in seconds: the call, what the loop loses over a window, until it is durable."""
    way.save(0)
    way.wait()
    calls, losses, durable = [], [], []
    for pair in range(pairs):
        took = {}
        for saves in (False, True) if pair % 2 else (True, False):
            for _ in range(2):
                trained.step()
            trained.synchronize()
            began_s = time.perf_counter()
            trained.step()
            if saves:
                trained.synchronize()
                save_s = time.perf_counter()
                way.save(pair + 1)
                calls.append(time.perf_counter() - save_s)
            for _ in range(window - 1):
                trained.step()
            trained.synchronize()
            took[saves] = time.perf_counter() - began_s
            if saves:
                way.wait()
                durable.append(time.perf_counter() - save_s)
        losses.append(took[True] - took[False])
    return statistics.median(calls), statistics.median(losses), statistics.median(durable)


def show_limits(trained: Trained, folder: Path) -> None:
    """Print what the hardware allows: the copy to the host and the disk."""
    size = -(-min(trained.state_bytes(), LIMIT_BYTES_MAX) // PIECE_BYTES) * PIECE_BYTES
    is_cuda = trained.device == "cuda"
    host = torch.ones(size, dtype=torch.uint8, pin_memory=is_cuda)
    source = torch.ones(size, dtype=torch.uint8, device=trained.device)
    took = []
    for _ in range(3):
        trained.synchronize()
        began_s = time.perf_counter()
        host.copy_(source, non_blocking=True)
        trained.synchronize()
        took.append(time.perf_counter() - began_s)
    whole = trained.state_bytes() / size
    print(f"limit: copy to the host {min(took) * whole * 1e3:.0f} ms ({size / min(took) / 1e9:.1f} GB/s)")
    for name, flags in (("buffered + fsync", 0), ("O_DIRECT + fsync", os.O_DIRECT)):
        try:
            print(f"limit: write, {name} {_written_s(folder / 'raw', host, flags) * whole * 1e3:.0f} ms")
        except OSError as error:
            print(f"limit: write, {name}: {error}")


def _written_s(path: Path, host: torch.Tensor, flags: int) -> float:
    path.touch()
    descriptor = os.open(path, os.O_WRONLY | flags)
    try:
        view = memoryview(host.numpy())
        began_s = time.perf_counter()
        for at in range(0, len(view), PIECE_BYTES):
            os.pwrite(descriptor, view[at : at + PIECE_BYTES], at)
        os.fsync(descriptor)
        return time.perf_counter() - began_s
    finally:
        os.close(descriptor)
        path.unlink()


def show_logging(trained: Trained, folder: Path) -> None:
    """Print what `session.log(loss=loss)` adds to a step, beside `loss.item()`."""

    def timed(run: Callable[[], None]) -> float:
        run()
        trained.synchronize()
        began_s = time.perf_counter()
        run()
        trained.synchronize()
        return (time.perf_counter() - began_s) / LOGGED_STEPS

    def plain() -> None:
        for _ in range(LOGGED_STEPS):
            trained.step()

    def item() -> None:
        for _ in range(LOGGED_STEPS):
            trained.step().item()

    def in_session(*, logs: bool) -> Callable[[], None]:
        def run() -> None:
            every: Any = {"seconds": None, "epochs": None, "steps": None}
            with trainerd.session(tempfile.mkdtemp(dir=folder), every=every) as session:
                # Not tracked, so that the final save is small: this measures logging.
                for _ in session.epochs(1):
                    for _ in session.batches(range(LOGGED_STEPS)):
                        loss = trained.step()
                        if logs:
                            session.log(loss=loss)

        return run

    ways = {
        "a step": plain,
        "with loss.item()": item,
        "in a session": in_session(logs=False),
        "in a session, with session.log(loss=loss)": in_session(logs=True),
    }
    for name, run in ways.items():
        print(f"{name}: {timed(run) * 1e3:.3f} ms")


def show_load(trained: Trained, folder: Path) -> None:
    """Print how long a checkpoint takes to be read, verified and put on the device, beside the limit."""
    objects = {"model": trained.model, "optimizer": trained.optimizer}
    with trainerd.Checkpointer(folder / "load", objects, keep_last=1) as checkpointer:
        checkpointer.save(step=1)
        newest = checkpointer.wait()
        assert newest is not None
        trained.synchronize()
        began_s = time.perf_counter()
        read_verified(newest, 0).apply(objects, source=newest.name)
        trained.synchronize()
        took_s = time.perf_counter() - began_s
        limit_s = _loaded_s(trained, newest.path / tensors_name(0))
        print(f"load onto the device, verified, from the page cache: {took_s:.3f} s")
        print(f"limit: read and copy: {limit_s:.3f} s; the load takes {took_s / limit_s:.1f} times as long")


def _loaded_s(trained: Trained, path: Path) -> float:
    """Return how long a file takes to be read and copied to the device as bytes, piece by piece."""
    is_cuda = trained.device == "cuda"
    piece, other = [torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=is_cuda) for _ in range(2)]
    target = torch.empty(PIECE_BYTES, dtype=torch.uint8, device=trained.device)
    with path.open("rb", buffering=0) as file:
        trained.synchronize()
        began_s = time.perf_counter()
        while size := file.readinto(piece.numpy()):
            trained.synchronize()  # the copy of the other piece went on during this read
            target[:size].copy_(piece[:size], non_blocking=True)
            piece, other = other, piece
        trained.synchronize()
        return time.perf_counter() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.cuda", description="what a save costs on a device")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--width", type=int, default=1024, help="a multiple of 16")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--window", type=int, default=8, help="steps")
    parser.add_argument("--ways", default=",".join(WAYS), help="which ways to save, with commas between them")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device; --device cpu rehearses without one")
    names = dict.fromkeys(
        each for each in WAYS for part in arguments.ways.split(",") if part and part in each
    )
    folder = Path(tempfile.mkdtemp(prefix="bench-cuda-", dir=arguments.folder))
    try:
        trained = Trained(arguments)
        for _ in range(5):
            trained.step()
        name = torch.cuda.get_device_name() if arguments.device == "cuda" else "the CPU: a rehearsal"
        print(f"{name}, torch {torch.__version__}, state {trained.state_bytes() / 1e9:.2f} GB", flush=True)
        show_limits(trained, folder)
        print(f"{'':26}{'call':>10}{f'over {arguments.window} steps':>16}{'durable':>12}")
        for way_name in names:
            place = folder / "way"
            place.mkdir()
            try:
                way = WAYS[way_name](trained, place)
                found = measured(trained, way, pairs=arguments.pairs, window=arguments.window)
                way.close()
                call, loss, durable = (f"{each * 1e3:.1f} ms" for each in found)
                print(f"{way_name:26}{call:>10}{loss:>16}{durable:>12}", flush=True)
            except Exception as error:  # noqa: BLE001 - a peer of another version, or without a device
                print(f"{way_name:26} failed: {type(error).__name__}: {error!s:.200}", flush=True)
            shutil.rmtree(place)
        show_load(trained, folder)
        show_logging(trained, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
