"""Train a ResNet-18 on handwritten digits with PyTorch-Ignite: 2 epochs, then 4 by ``--epochs 4``.

Ignite's own how-to, and the few lines marked with `session`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, global_step_from_engine
from ignite.metrics import Accuracy, Loss, RunningAverage
from torch import nn
from torch.utils.data import DataLoader

import trainerd
from trainerd.integrations.ignite import StoreSaver, attach

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mnist"))  # its digits, and its torchvision

from digits import SOURCES, choose_source, load_digits
from torchvision_compat import import_torchvision


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)

    with trainerd.session(run=args.run, seed=0) as session:
        source = choose_source(args.data, args.source, marker=session.run_dir / "data-source")
        train_set, valid_set = load_digits(args.data, source, args.train_size, args.valid_size)
        train_loader = DataLoader(train_set, args.batch_size, shuffle=True, num_workers=args.workers)
        valid_loader = DataLoader(valid_set, 256, num_workers=args.workers)

        model = import_torchvision().models.resnet18(num_classes=10)
        model.conv1 = nn.Conv2d(1, 64, kernel_size=3, padding=1, bias=False)
        optimizer = torch.optim.RMSprop(model.parameters(), lr=0.005)
        criterion = nn.CrossEntropyLoss()
        session.track(model=model, optimizer=optimizer)

        trainer = create_supervised_trainer(model, optimizer, criterion)
        evaluator = create_supervised_evaluator(model, {"accuracy": Accuracy(), "loss": Loss(criterion)})
        RunningAverage(output_transform=float).attach(trainer, "running_loss")
        attach(trainer, session, evaluators=[evaluator])

        @trainer.on(Events.ITERATION_COMPLETED)
        def log(engine: Engine) -> None:
            session.log(loss=engine.state.output)

        @trainer.on(Events.EPOCH_COMPLETED)
        def evaluate(engine: Engine) -> None:
            evaluator.run(valid_loader)
            accuracy = evaluator.state.metrics["accuracy"]
            session.report(accuracy=accuracy)
            print(f"epoch {engine.state.epoch} of {args.epochs}: accuracy {accuracy:.4f}", flush=True)

        best = Checkpoint(
            {"model": model},
            StoreSaver(session.run_dir / "best", require_empty=False),
            n_saved=2,
            filename_prefix="best",
            score_name="accuracy",
            global_step_transform=global_step_from_engine(trainer),
        )
        evaluator.add_event_handler(Events.COMPLETED, best)
        trainer.run(train_loader, max_epochs=args.epochs)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--train-size", type=int, default=512)
    parser.add_argument("--valid-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--run", default="ignite", help="name of the run: the same for 2 and for 4 epochs")
    parser.add_argument("--source", choices=[*SOURCES, "auto"], default="auto")
    parser.add_argument("--data", type=Path, default=Path("data"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
