"""Loaders whose order and randomness come from anywhere: a disturbed run equals an undisturbed one."""

import functools
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, Subset

from tests.support.in_process import disturbed, undisturbed
from tests.support.stateful_loaders import AtMultiples

pytestmark = pytest.mark.torch

STRIKES = (7, 6, 5)
SAMPLES = 32


class Points(Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return torch.tensor([float(index), 1.0]) / SAMPLES


def train(session, tick, loader, after_step=lambda loss: None, *, per_epoch=None, epochs=3):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(epochs):
        for number, batch in enumerate(session.batches(loader(), accumulate=1)):
            loss = model(batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss, first=batch.flatten()[0])
            after_step(loss.item())
            tick()
            if per_epoch is not None and session.batch + 1 >= per_epoch:
                break
            del number


def is_exact(tmp_path, loop, strikes=STRIKES):
    expected = undisturbed(tmp_path / "left-alone", loop)
    found = disturbed(tmp_path / "struck", loop, strikes)
    assert found == expected
    return expected


class OwnGenerator(Sampler):
    """Draws from a generator that goes on from epoch to epoch."""

    def __init__(self, generator):
        self.shuffled = generator

    def __len__(self):
        return SAMPLES

    def __iter__(self):
        order = list(range(SAMPLES))
        if isinstance(self.shuffled, torch.Generator):
            return iter(torch.randperm(SAMPLES, generator=self.shuffled).tolist())
        self.shuffled.shuffle(order)
        return iter(order)


CLOCK = itertools.count()


class ByClock(Sampler):
    """Yields another order whenever it is asked, as one that looks at a file or the clock."""

    def __len__(self):
        return SAMPLES

    def __iter__(self):
        turn = next(CLOCK) % 5
        return iter([(index * 5 + turn) % SAMPLES for index in range(SAMPLES)])


class Curriculum(Sampler):
    """Sorts by what the losses were; has no length."""

    def __init__(self):
        self.scores = [0.0] * SAMPLES
        self.asked = 0

    def __iter__(self):
        self.asked += 1
        yield from sorted(range(SAMPLES), key=lambda index: (self.scores[index], index))


class Buckets(Sampler):
    """Batches of unequal size, shuffled by a generator of its own."""

    def __init__(self):
        self.state = {"rng": np.random.RandomState(3)}

    def __iter__(self):
        rng = self.state["rng"]
        bounds = [0, 3, 10, 11, 20, 26, SAMPLES]
        batches = [list(range(a, b)) for a, b in itertools.pairwise(bounds)]
        rng.shuffle(batches)
        yield from batches


class Endless(Sampler):
    """Never stops, in rounds that depend on how far it is."""

    def __init__(self):
        self.rng = random.Random(5)

    def __iter__(self):
        while True:
            order = list(range(SAMPLES))
            self.rng.shuffle(order)
            random.shuffle(order)
            yield from order


WORKERS = [0, pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(
    "generator",
    [
        lambda: torch.Generator().manual_seed(1),
        lambda: np.random.RandomState(1),
        lambda: np.random.default_rng(1),
        lambda: random.Random(1),
    ],
)
def test_a_sampler_with_a_generator_of_its_own(tmp_path, generator):
    def loop(session, tick):
        made = DataLoader(Points(), 4, sampler=OwnGenerator(generator()))
        train(session, tick, lambda: made)

    rows = is_exact(tmp_path, loop).rows
    firsts = [row["first"] for row in rows]
    assert len({tuple(firsts[begin : begin + 8]) for begin in (0, 8, 16)}) == 3


def test_a_generator_that_the_sampler_and_the_script_draw_from(tmp_path):
    def loop(session, tick):
        generator = np.random.default_rng(1)
        made = DataLoader(Points(), 4, sampler=OwnGenerator(generator))
        train(session, tick, lambda: made, lambda loss: session.log(drawn=generator.normal()))

    is_exact(tmp_path, loop)


def test_a_sampler_whose_order_nothing_repeats_is_exact_within_an_epoch(tmp_path):
    def loop(session, tick):
        made = DataLoader(Points(), 4, sampler=ByClock())
        train(session, tick, lambda: made, epochs=1)

    CLOCK_BEFORE = next(CLOCK)
    expected = undisturbed(tmp_path / "left-alone", loop)
    while next(CLOCK) % 5 != CLOCK_BEFORE % 5:
        pass  # so that the first attempt finds the clock at its former time
    assert disturbed(tmp_path / "struck", loop, (5, 3)) == expected


def test_a_curriculum_that_follows_the_losses(tmp_path):
    def loop(session, tick):
        sampler = Curriculum()
        made = DataLoader(Points(), 4, sampler=sampler)

        def note(loss):
            sampler.scores[(session.step * 7) % SAMPLES] = -loss
            session.log(asked=sampler.asked)

        train(session, tick, lambda: made, note)

    firsts = [row["first"] for row in is_exact(tmp_path, loop).rows]
    assert firsts[:8] != firsts[8:16]


def test_weights_that_change_in_place(tmp_path):
    def loop(session, tick):
        weights = torch.ones(SAMPLES, dtype=torch.float64)
        sampler = torch.utils.data.WeightedRandomSampler(weights, SAMPLES)
        made = DataLoader(Points(), 4, sampler=sampler)

        def note(loss):
            weights[session.step % SAMPLES] += loss
            session.log(total=weights.sum())

        train(session, tick, lambda: made, note)

    is_exact(tmp_path, loop)


def test_weights_that_the_script_sets_before_each_epoch_are_its_own(tmp_path):
    def loop(session, tick):
        sampler = torch.utils.data.WeightedRandomSampler([1.0] * SAMPLES, SAMPLES)
        made = DataLoader(Points(), 4, sampler=sampler)

        def weighted():
            sampler.weights = torch.arange(SAMPLES, dtype=torch.float64) ** session.epoch
            return made

        train(session, tick, weighted)

    is_exact(tmp_path, loop)


def test_batches_in_buckets_without_a_length(tmp_path):
    def loop(session, tick):
        made = DataLoader(Points(), batch_sampler=Buckets())
        train(session, tick, lambda: made)

    assert len(is_exact(tmp_path, loop).rows) == 18


@pytest.mark.parametrize("workers", WORKERS)
def test_a_sampler_without_an_end(tmp_path, workers):
    def loop(session, tick):
        made = DataLoader(Points(), 4, sampler=Endless(), num_workers=workers)
        train(session, tick, lambda: made, per_epoch=9)

    firsts = [row["first"] for row in is_exact(tmp_path, loop).rows]
    assert len(firsts) == 27
    assert firsts[:9] != firsts[9:18]


def test_a_very_long_sampler_is_not_listed(tmp_path):
    def loop(session, tick):
        points = Points()
        sampler = RandomSampler(points, replacement=True, num_samples=10**10)
        made = DataLoader(points, 4, sampler=sampler)
        train(session, tick, lambda: made, per_epoch=20, epochs=1)

    is_exact(tmp_path, loop)


class Shift:
    """A transform with a generator."""

    def __init__(self):
        self.hidden = [np.random.default_rng(0)]

    def __call__(self, point):
        return point + float(self.hidden[0].normal())


class Noisy(Points):
    shared = random.Random(9)

    def __init__(self):
        self.transform = Shift()

    def __getitem__(self, index):
        return self.transform(super().__getitem__(index)) + self.shared.random()


def collate(samples, rng):
    return torch.stack(samples) + torch.rand((), generator=rng)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_dataset_and_a_collate_function_with_generators_of_their_own(tmp_path, workers):
    def loop(session, tick, workers=workers):
        made = DataLoader(
            Subset(Noisy(), range(SAMPLES)),
            4,
            shuffle=True,
            num_workers=workers,
            collate_fn=functools.partial(collate, rng=torch.Generator()),
        )
        train(session, tick, lambda: made)

    expected = is_exact(tmp_path, loop)
    assert undisturbed(tmp_path / "other", functools.partial(loop, workers=2 - workers)) == expected
    assert len({row["loss"] for row in expected.rows}) == 24


class Stream(IterableDataset):
    def __init__(self):
        self.rng = np.random.default_rng(2)

    def __iter__(self):
        order = list(range(SAMPLES))
        random.shuffle(order)
        for index in order:
            yield torch.tensor([float(index), 1.0]) / SAMPLES + float(self.rng.normal()) + torch.rand(())


@pytest.mark.parametrize(
    ("workers", "persists"), [(0, False), pytest.param(1, False, marks=pytest.mark.slow), (2, True)]
)
@pytest.mark.filterwarnings("ignore:trainerd. resuming at batch")
def test_a_stream_that_draws_from_all_generators(tmp_path, workers, persists):
    def loop(session, tick):
        made = DataLoader(Stream(), 8, num_workers=workers, persistent_workers=persists)
        train(session, tick, lambda: made)

    is_exact(tmp_path, loop, (4, 4, 3))


class Augmented(Points):
    def __getitem__(self, index):
        return super().__getitem__(index) + torch.rand(()) + random.random() + np.random.rand()


class Lazy:
    """Knows its position, and begins its loader within the first ``next``."""

    def __init__(self, workers):
        self.at, self.workers = 0, workers

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]

    def __iter__(self):
        rest = range(self.at * 4, SAMPLES)
        for batch in DataLoader(Augmented(), 4, sampler=rest, num_workers=self.workers):
            self.at += 1
            yield batch
        self.at = 0


class InTwoHands(DataLoader):
    """A loader of another kind: iterates as it likes."""

    def __iter__(self):
        yield from super().__iter__()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.filterwarnings("ignore:trainerd. resuming at batch")
@pytest.mark.parametrize("kind", ["stateful", "subclass", "subclass that persists"])
def test_loaders_that_begin_within_others(tmp_path, kind, workers):
    if kind == "subclass that persists" and not workers:
        pytest.skip("no workers, none that persist")

    def loop(session, tick):
        persists = kind == "subclass that persists"
        made = (
            Lazy(workers)
            if kind == "stateful"
            else InTwoHands(Augmented(), 4, shuffle=True, num_workers=workers, persistent_workers=persists)
        )
        train(session, tick, lambda: made)

    is_exact(tmp_path, loop)


class Repeat:
    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from iter(self.sampler)


class MultiEpochs(DataLoader):
    """As timm has it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._DataLoader__initialized = False
        self.batch_sampler = Repeat(self.batch_sampler)
        self._DataLoader__initialized = True
        self.iterator = super().__iter__()

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


def test_a_loader_that_holds_one_endless_iterator(tmp_path):
    def loop(session, tick):
        made = MultiEpochs(Augmented(), 4, shuffle=True)
        train(session, tick, lambda: made)

    firsts = [row["first"] for row in is_exact(tmp_path, loop).rows]
    assert len(firsts) == 24
    assert firsts[:8] != firsts[8:16]


def test_a_stateful_loader_of_two_loops_is_put_back_once(tmp_path):
    def loop(session, tick):
        made = AtMultiples()
        seen = session.value("seen", [])
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(3):
            for _ in range(2):
                for batch in session.batches(made):
                    seen.value = [*seen.value, made.at]
                    session.log(loss=batch.sum())
                    tick()

    expected = is_exact(tmp_path, loop)
    assert len(expected.rows) == 24
