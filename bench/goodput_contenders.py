"""The contenders of `bench.goodput`: one model, one dataset, one way each to survive.

Each is written as its library's documentation has it, saves every `--every` steps, notes which samples each
step used, and leaves `result.json` when it is done. The hand-written loop is a careful one: it writes beside
the old file and renames, seeds the order of each epoch, and skips the batches it has done; like most, it
saves no generator.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

MNIST = Path(__file__).parents[1] / "jobs" / "examples" / "mnist"
SAMPLES_A_BATCH = 8
FEATURES, CLASSES = 16, 4


def main():
    args = parse_arguments()
    # First of all: it is to be found while it imports. A pid alone may be another process's by then.
    start_ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (args.folder / "pid").write_text(f"{os.getpid()} {start_ticks}")
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    CONTENDERS[args.contender](args)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--step-ms", type=float, default=40.0)
    parser.add_argument("--every", type=int, default=20)
    return parser.parse_args()


# ---------------------------------------------------------------- what all have in common


def parts(args):
    """Return model, optimizer and dataset, from one seed."""
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    class Noisy(Dataset):
        def __init__(self):
            generator = torch.Generator().manual_seed(1)
            size = args.batches * SAMPLES_A_BATCH
            centres = torch.randn(CLASSES, FEATURES, generator=generator)
            self.targets = torch.randint(CLASSES, (size,), generator=generator)
            self.points = centres[self.targets] + torch.randn(size, FEATURES, generator=generator)

        def __len__(self):
            return len(self.points)

        def __getitem__(self, index):
            return self.points[index] + 0.1 * torch.randn(FEATURES), self.targets[index], index

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, CLASSES))
    return model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), Noisy()


class Step:
    """One training step with its least duration, and the note of it."""

    def __init__(self, args):
        self.args = args
        self.ledger = (args.folder / "ledger.jsonl").open("a", buffering=1)
        self.began_s = 0.0

    def loss(self, model, points, targets):
        from torch.nn import functional

        self.began_s = time.monotonic()
        return functional.cross_entropy(model(points), targets)

    def done(self, step, samples):
        row = {"step": step, "samples": samples.tolist(), "at_s": time.monotonic()}
        self.ledger.write(json.dumps(row) + "\n")
        time.sleep(max(0.0, self.args.step_ms / 1000 - (time.monotonic() - self.began_s)))

    def whole(self, model, optimizer, batch, step):
        points, targets, samples = batch
        loss = self.loss(model, points, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.done(step, samples)
        return loss


def finish(args, model):
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values()))
    draft = args.folder / ".result.json"
    draft.write_text(json.dumps({"digest": digest.hexdigest()}))
    draft.rename(args.folder / "result.json")


# ---------------------------------------------------------------- the contenders


def plain(args):
    """Nothing survives here: it is the measure."""
    import torch
    from torch.utils.data import DataLoader

    model, optimizer, data = parts(args)
    step, number = Step(args), 0
    for epoch in range(args.epochs):
        order = torch.Generator().manual_seed(epoch)
        for batch in DataLoader(data, SAMPLES_A_BATCH, shuffle=True, generator=order):
            number += 1
            step.whole(model, optimizer, batch, number)
    finish(args, model)


def torch_save(args):
    import torch
    from torch.utils.data import DataLoader

    model, optimizer, data = parts(args)
    path, start_epoch, skip = args.folder / "checkpoint.pt", 0, 0
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start_epoch, skip = state["epoch"], state["batch"]
    step = Step(args)
    for epoch in range(start_epoch, args.epochs):
        order = torch.Generator().manual_seed(epoch)
        for number, batch in enumerate(DataLoader(data, SAMPLES_A_BATCH, shuffle=True, generator=order), 1):
            if epoch == start_epoch and number <= skip:
                continue
            step.whole(model, optimizer, batch, epoch * args.batches + number)
            if number % args.every == 0:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epoch": epoch,
                    "batch": number,
                }
                torch.save(state, f"{path}.tmp")
                Path(f"{path}.tmp").replace(path)
    finish(args, model)


def ours(args):
    from torch.utils.data import DataLoader

    import trainerd

    with trainerd.session(args.folder / "run", every={"steps": args.every, "seconds": None}) as session:
        model, optimizer, data = parts(args)
        session.track(model=model, optimizer=optimizer)
        step = Step(args)
        loader = DataLoader(data, SAMPLES_A_BATCH, shuffle=True)
        for _ in session.epochs(args.epochs):
            for batch in session.batches(loader):
                session.log(loss=step.whole(model, optimizer, batch, session.step + 1))
    finish(args, model)


def ignite(args):
    import torch
    from ignite.engine import Engine, Events
    from ignite.handlers import Checkpoint, DiskSaver
    from torch.utils.data import DataLoader

    model, optimizer, data = parts(args)
    step = Step(args)
    trainer = Engine(lambda engine, batch: step.whole(model, optimizer, batch, engine.state.iteration).item())
    state = {"model": model, "optimizer": optimizer, "trainer": trainer}
    saver = DiskSaver(str(args.folder / "ignite"), create_dir=True, require_empty=False)
    handler = Checkpoint(state, saver, n_saved=3, global_step_transform=lambda *_: trainer.state.iteration)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=args.every), handler)
    found = sorted(
        (args.folder / "ignite").glob("checkpoint_*.pt"), key=lambda path: int(path.stem.split("_")[1])
    )
    if found:
        Checkpoint.load_objects(state, torch.load(found[-1]))
    trainer.run(DataLoader(data, SAMPLES_A_BATCH, shuffle=True), max_epochs=args.epochs)
    finish(args, model)


def fit_torchvision():
    """Import torchvision, which both libraries do; it may be one that does not fit the torch beside it."""
    sys.path.insert(0, str(MNIST))
    from torchvision_compat import import_torchvision

    import_torchvision()


def lightning(args):
    fit_torchvision()
    import lightning as pl
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader

    model, optimizer, data = parts(args)
    step = Step(args)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, _number):
            self.samples = batch[2]
            return step.loss(self.model, batch[0], batch[1])

        def on_train_batch_end(self, *_):
            step.done(self.global_step, self.samples)

        def configure_optimizers(self):
            return optimizer

    saving = ModelCheckpoint(
        args.folder / "lightning",
        every_n_train_steps=args.every,
        save_top_k=1,
        save_last=True,
        monitor="step",
        mode="max",
    )
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=1,
        callbacks=[saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = args.folder / "lightning" / "last.ckpt"
    loader = DataLoader(data, SAMPLES_A_BATCH, shuffle=True)
    trainer.fit(Module(), loader, ckpt_path=str(last) if last.exists() else None)
    finish(args, model)


def transformers(args):
    fit_torchvision()
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    model, optimizer, data = parts(args)
    step = Step(args)
    used = []

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, points, targets, samples):
            used[:] = [samples]
            return {"loss": step.loss(self.model, points, targets)}

    class Notes(TrainerCallback):
        def on_step_end(self, _args, state, _control, **_):
            step.done(state.global_step, used[0])

    folder = args.folder / "transformers"
    settings = TrainingArguments(
        str(folder),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=SAMPLES_A_BATCH,
        save_steps=args.every,
        save_total_limit=2,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        max_grad_norm=0.0,
    )
    trainer = Trainer(
        Loss(),
        settings,
        train_dataset=data,
        data_collator=lambda rows: dict(
            zip(("points", "targets", "samples"), torch.utils.data.default_collate(rows), strict=True)
        ),
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)),
        callbacks=[Notes()],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if folder.is_dir() else None)
    finish(args, model)


CONTENDERS = {
    "plain": plain,
    "trainerd": ours,
    "torch.save": torch_save,
    "ignite": ignite,
    "lightning": lightning,
    "transformers": transformers,
}

if __name__ == "__main__":
    main()
