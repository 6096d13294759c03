"""Only datasets that are known to draw nothing are fetched from without streams of their own."""

import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    StackDataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
)

from trainerd.training.data.purity import draws_nothing

PLAIN = TensorDataset(torch.arange(4))


class Mine(TensorDataset):
    pass


class Noisy(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(())


@pytest.mark.parametrize(
    "dataset",
    [PLAIN, Subset(PLAIN, [1]), ConcatDataset([PLAIN, PLAIN]), StackDataset(a=PLAIN), StackDataset(PLAIN)],
    ids=lambda dataset: type(dataset).__name__,
)
def test_torchs_own_over_tensors_draw_nothing(dataset):
    assert draws_nothing(dataset, default_collate)
    assert draws_nothing(dataset, default_convert)
    assert not draws_nothing(dataset, lambda samples: samples)


@pytest.mark.parametrize(
    "dataset",
    [
        Mine(torch.arange(4)),
        Noisy(),
        Subset(Noisy(), [1]),
        ConcatDataset([PLAIN, Mine(torch.arange(4))]),
        StackDataset(a=Noisy()),
        [1, 2],
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_a_users_code_may_draw(dataset):
    assert not draws_nothing(dataset, default_collate)
