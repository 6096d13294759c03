"""Iterables that know their own position, from libraries that people use, resumed through their own state."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from tests.support.in_process import disturbed, undisturbed

pytestmark = pytest.mark.torch


class Points(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        return torch.full((3,), float(index)) / 30


def train(session, tick, loader, as_batch=lambda batch: batch):
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(3):
        for item in session.batches(loader):
            batch = as_batch(item)
            loss = model(batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss, first=batch.flatten()[0])
            tick()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_stateful_dataloader_is_resumed_through_its_state(tmp_path, shuffle, workers):
    loaders = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def loop(session, tick):
        loader = loaders.StatefulDataLoader(Points(), batch_size=4, shuffle=shuffle, num_workers=workers)
        train(session, tick, loader)

    expected = undisturbed(tmp_path / "left-alone", loop)
    assert disturbed(tmp_path / "struck", loop, (6, 5, 3)) == expected
    assert len(expected.rows) == 24


@pytest.mark.slow
def test_an_iterable_of_hugging_faces_datasets_is_resumed_through_its_state(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")

    def loop(session, tick):
        rows = datasets.Dataset.from_dict({"x": [[index / 30] * 3 for index in range(30)]})
        stream = rows.to_iterable_dataset(num_shards=3).with_format("torch")
        train(session, tick, stream.batch(4), lambda item: torch.as_tensor(item["x"]))

    expected = undisturbed(tmp_path / "left-alone", loop)
    assert disturbed(tmp_path / "struck", loop, (6, 5, 3)) == expected
