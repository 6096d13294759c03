"""Train a small BERT to fill in masked words with the Trainer of Transformers, from scratch and offline."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.utils.data import Dataset

import trainerd
from trainerd.integrations.transformers import protect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mnist"))  # its torchvision

from torchvision_compat import import_torchvision

if find_spec("torchvision"):
    import_torchvision()  # Transformers imports it, whether or not it fits the torch beside it

from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

WORDS, LENGTH, MASK = 40, 12, 39


class Sentences(Dataset):
    """Rows of words, each of which follows from the one before; each reading masks a sixth, at random."""

    def __init__(self, size: int, seed: int) -> None:
        first = torch.randint(0, MASK, (size, 1), generator=torch.Generator().manual_seed(seed))
        self.words = (first + 3 * torch.arange(LENGTH)) % MASK

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        words = self.words[index]
        is_masked = torch.rand(LENGTH) < 1 / 6
        return {
            "input_ids": torch.where(is_masked, MASK, words),
            "labels": torch.where(is_masked, words, -100),
        }


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=LENGTH,
        )
    )
    with trainerd.session(run=args.run, seed=0) as session:
        arguments = TrainingArguments(
            str(session.run_dir / "transformers"),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=args.accumulate,
            learning_rate=5e-3,
            logging_steps=2,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_num_workers=args.workers,
        )
        trainer = Trainer(model, arguments, train_dataset=Sentences(160, 1), eval_dataset=Sentences(64, 2))
        protect(trainer, session)
        trainer.train()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=2, help="batches a step of the optimizer")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument(
        "--run", default="transformers", help="name of the run: the same for 2 and for 4 epochs"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
