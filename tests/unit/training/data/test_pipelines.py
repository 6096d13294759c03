"""Iterables that consist of stages in a list, as WebDataset's pipelines do."""

from __future__ import annotations

import random

import pytest

from trainerd.training.data.iterable_source import IterableSource
from trainerd.training.data.passes import Pass

pytestmark = pytest.mark.torch


class Shuffle:
    """Shuffles by a seed of its own and the number of passes that it has seen, as `webdataset.detshuffle`."""

    def __init__(self) -> None:
        self.epoch = -1

    def run(self, samples):
        self.epoch += 1
        return random.Random(self.epoch).sample(samples, len(samples))


class Pipeline:
    def __init__(self) -> None:
        self.pipeline = [range(6), Shuffle()]

    def __iter__(self):
        return iter(self.pipeline[1].run(list(self.pipeline[0])))


def webdataset_pipeline():
    webdataset = pytest.importorskip("webdataset")
    return webdataset.DataPipeline(lambda: iter(range(6)), webdataset.detshuffle(bufsize=6, initial=6))


def passes_of(pipeline, *, first=(0, 0), saved=None, stop_at=None):
    source = IterableSource(pipeline, seed=1, warn=lambda _: None, suspect=lambda _: None)
    read = {}
    done = first[1]
    for epoch in range(first[0], 3):
        source.begin(saved, done)
        for number, batch in enumerate(source.iterate(Pass((1, 0), epoch), done, lambda: False), done):
            read[epoch, number] = batch
            if (epoch, number + 1) == stop_at:
                return read, source.saved(number + 1)
        saved, done = source.saved(None), 0
    return read, saved


@pytest.mark.parametrize("made", [Pipeline, webdataset_pipeline])
@pytest.mark.parametrize("place", [(0, 2), (1, 2), (2, 5)])
def test_a_stage_that_counts_passes_goes_on_where_it_was(made, place):
    expected, _ = passes_of(made())
    first, saved = passes_of(made(), stop_at=place)
    rest, _ = passes_of(made(), first=place, saved=saved)
    assert {**first, **rest} == expected
    assert [expected[0, n] for n in range(6)] != [expected[1, n] for n in range(6)]
