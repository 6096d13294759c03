"""Training loops by the way in which batches reach the step: samplers, wrappers, windows, several loaders.

As in `loop_shapes`, each is a whole script but for its session. Shapes of `EXACT` end in the same state
wherever they are struck; those of `TOLD` may end in another one, but only after an error or with a reason.
"""

from __future__ import annotations

import itertools

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

import trainerd
from tests.support.loop_shapes import Again, Points, Trainee, data


class ByLoss(Sampler):
    """Samples with a high loss come first."""

    def __init__(self, length=8):
        self.losses = torch.zeros(length)

    def __len__(self):
        return len(self.losses)

    def __iter__(self):
        return iter(self.losses.argsort(descending=True, stable=True).tolist())


class Numbered(Dataset):
    """Points with their numbers."""

    def __init__(self, length=8):
        self.points = Points(length=length)

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return index, self.points[index]


def curriculum(session, tick):
    """a sampler whose order follows the losses so far, kept by the sampler"""
    it, sampler = Trainee(session, tick), ByLoss()
    loader = DataLoader(Numbered(), 2, sampler=sampler)
    for _ in session.epochs(3):
        for numbers, x in session.batches(loader):
            sampler.losses[numbers] = it.model(x).detach().square().view(-1)
            it.step(x)
        it.work()


def curriculum_within_a_pass(session, tick):
    """a sampler that looks at the losses as it goes on"""

    class Lazy(ByLoss):
        def __iter__(self):
            left = set(range(len(self)))
            while left:
                chosen = max(left, key=lambda index: (float(self.losses[index]), index))
                left.remove(chosen)
                yield chosen

    it, sampler = Trainee(session, tick), Lazy()
    loader = DataLoader(Numbered(), 2, sampler=sampler)
    for _ in session.epochs(3):
        for numbers, x in session.batches(loader):
            sampler.losses += 0.1
            sampler.losses[numbers] = it.model(x).detach().square().view(-1)
            it.step(x)
        it.work()


def curriculum_in_a_closure(session, tick):
    """a sampler that orders by a list of the function around it"""
    losses = [0.0] * 8

    class Closed(Sampler):
        def __init__(self):
            pass

        def __len__(self):
            return len(losses)

        def __iter__(self):
            return iter(sorted(range(len(losses)), key=lambda index: (losses[index], index)))

    it = Trainee(session, tick)
    loader = DataLoader(Numbered(), 2, sampler=Closed())
    for _ in session.epochs(3):
        for numbers, x in session.batches(loader):
            for number, loss in zip(numbers.tolist(), it.model(x).detach().abs().view(-1), strict=True):
                losses[number] = float(loss)
            it.step(x)
        it.work()


def curriculum_by_model(session, tick):
    """a sampler that asks the model which samples are hard"""

    class Hard(ByLoss):
        def __init__(self, model, points):
            super().__init__()
            self.model, self.points = model, points

        def __iter__(self):
            with torch.no_grad():
                self.losses = self.model[0](self.points).sum(1)
            return super().__iter__()

    it, dataset = Trainee(session, tick), Numbered()
    loader = DataLoader(dataset, 2, sampler=Hard(it.model, dataset.points.x))
    for _ in session.epochs(3):
        for _, x in session.batches(loader):
            it.step(x)
        it.work()


def curriculum_of_a_value(session, tick):
    """a loader for each epoch, over the samples that a ``session.value`` says were hard"""
    it, dataset = Trainee(session, tick), Numbered()
    losses = session.value("losses", torch.zeros(8))
    for _ in session.epochs(3):
        order = losses.value.argsort(descending=True, stable=True)[:6].tolist()
        for numbers, x in session.batches(DataLoader(dataset, 2, sampler=order)):
            losses.value[numbers] = it.model(x).detach().square().view(-1)
            it.step(x)
        it.work()


def zip_with_a_list(session, tick):
    """``zip(session.batches(loader), values)``, a list"""
    it, loader, values = Trainee(session, tick), data(), [0.1, 0.2, 0.3, 0.4]
    for _ in session.epochs(2):
        for x, value in zip(session.batches(loader), values):  # noqa: B905 - as scripts do
            it.step(x + value)
        it.work()


def zip_with_a_count(session, tick):
    """``zip(itertools.count(), session.batches(loader))``"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for number, x in zip(itertools.count(), session.batches(loader)):
            it.step(x + number / 10)
        it.work()


def zip_with_a_generator(session, tick):
    """``zip(session.batches(loader), generator)``"""
    it, loader = Trainee(session, tick), data()

    def rising():
        for number in range(99):
            yield number / 10

    for _ in session.epochs(2):
        for x, value in zip(session.batches(loader), rising()):  # noqa: B905 - as scripts do
            it.step(x + value)
        it.work()


def zip_with_a_cycle(session, tick):
    """``zip(session.batches(loader), itertools.cycle(other))``"""
    it, loader, other = Trainee(session, tick), data(), data(1, 6)
    for _ in session.epochs(2):
        for x, y in zip(session.batches(loader), itertools.cycle(other)):
            it.step(x - 0.5 * y)
        it.work()


def zip_with_noise(session, tick):
    """``zip(session.batches(loader), generator)``, whose values depend on no position"""
    it, loader = Trainee(session, tick), data()

    def noise():
        while True:
            yield torch.rand(3)

    for _ in session.epochs(2):
        for x, value in zip(session.batches(loader), noise()):  # noqa: B905 - as scripts do
            it.step(x + value)
        it.work()


def zip_with_a_constant(session, tick):
    """``zip(session.batches(loader), itertools.repeat(value))``"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x, value in zip(session.batches(loader), itertools.repeat(0.1)):
            it.step(x + value)
        it.work()


def zip_longest(session, tick):
    """``itertools.zip_longest(session.batches(loader), values)``"""
    it, loader, values = Trainee(session, tick), data(), [0.1, 0.2, 0.3]
    for _ in session.epochs(2):
        for x, value in itertools.zip_longest(session.batches(loader), values, fillvalue=0.0):
            it.step(x + value)
        it.work()


def summed_up(session, tick):
    """``itertools.accumulate`` around the session"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in itertools.accumulate(session.batches(loader)):
            it.step(x)
        it.work()


def zip_in_the_second_loop(session, tick):
    """a plain loop, then ``zip(session.batches(loader), values)``"""
    it, loader, values = Trainee(session, tick), data(length=4), [0.1, 0.2, 0.3, 0.4]
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
        for x, value in zip(session.batches(loader), values):  # noqa: B905 - as scripts do
            it.step(x + value)
        it.work()


def numbered_by_enumerate(session, tick):
    """``enumerate(session.batches(loader))``, whose number the step depends on"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for number, x in enumerate(session.batches(loader)):
            it.step(x + number / 10)
        it.work()


def cycled(session, tick):
    """``itertools.cycle(session.batches(loader))``"""
    it, loader = Trainee(session, tick), data()
    for x in itertools.cycle(session.batches(loader)):
        it.step(x)
        if session.step >= 6:
            break


def sliced(session, tick):
    """``itertools.islice(session.batches(loader), n)``"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in itertools.islice(session.batches(loader), 3):
            it.step(x)
        it.work()


def sliced_in_the_second_loop(session, tick):
    """a plain loop, then ``itertools.islice(session.batches(loader), n)``"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
        for x in itertools.islice(session.batches(loader), 2):
            it.step(x)
        it.work()


def sliced_below_a_generator(session, tick):
    """``islice`` around a generator expression around the session"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in itertools.islice((x * 1.0 for x in session.batches(loader)), 3):
            it.step(x)
        it.work()


def sliced_forever(session, tick):
    """``islice`` of a fixed number of batches for each epoch from a generator that never ends"""
    it, loader = Trainee(session, tick), data(length=6)

    def forever():
        while True:
            yield from session.batches(loader)

    batches = forever()
    for _ in range(4):
        for x in itertools.islice(batches, 2):
            it.step(x)
        it.work()


def taken_while(session, tick):
    """``itertools.takewhile`` around the session"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in itertools.takewhile(lambda x: session.batch < 3, session.batches(loader)):
            it.step(x)
        it.work()


def chained(session, tick):
    """``itertools.chain`` of two loops"""
    it, one, other = Trainee(session, tick), data(1, 4), data(2, 4)
    for _ in session.epochs(2):
        for x in itertools.chain(session.batches(one), session.batches(other)):
            it.step(x)
        it.work()


def mapped(session, tick):
    """``map`` with a function that draws"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in map(lambda x: x + torch.rand(3), session.batches(loader)):  # noqa: C417 - the shape
            it.step(x)
        it.work()


def generator_expression(session, tick):
    """a generator expression around the session"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in (2 * x for x in session.batches(loader)):
            it.step(x)
        it.work()


def filtered(session, tick):
    """``filter`` around the session: some batches make no step"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in filter(lambda x: float(x.sum()) > -1.0, session.batches(loader)):
            it.step(x)
        it.work()


def growing_batches(session, tick):
    """a loader for each epoch, with larger batches"""
    it, dataset = Trainee(session, tick), Points(length=12)
    for epoch in session.epochs(3):
        for x in session.batches(DataLoader(dataset, 2 + 2 * epoch, shuffle=True)):
            it.step(x)
        it.work()


def growing_batches_in_place(session, tick):
    """the batch size of one loader's batch sampler changed between epochs"""
    it, loader = Trainee(session, tick), DataLoader(Points(length=12), 2, shuffle=True)
    for epoch in session.epochs(3):
        loader.batch_sampler.batch_size = 2 + 2 * epoch
        for x in session.batches(loader):
            it.step(x)
        it.work()


def batches_grown_by_losses(session, tick):
    """the batch size doubled when the loss says so, kept by the batch sampler alone"""
    it, loader = Trainee(session, tick), DataLoader(Points(length=12), 2, shuffle=True)
    for _ in session.epochs(3):
        for x in session.batches(loader):
            it.step(x)
        it.work()
        loader.batch_sampler.batch_size += 1


def batches_grown_after_loop(session, tick):
    """a variable of the script that grows after each epoch, and a loader for each"""
    it, dataset, size = Trainee(session, tick), Points(length=12), 2
    for _ in session.epochs(3):
        for x in session.batches(DataLoader(dataset, size, shuffle=True)):
            it.step(x)
        it.work()
        size += 2


def lookahead(batches):
    """Yield each batch when the next one was taken, and whether it is the last."""
    iterator = iter(batches)
    waiting = next(iterator)
    for following in iterator:
        yield waiting, False
        waiting = following
    yield waiting, True


def looked_ahead(session, tick):
    """a generator that fetches one batch ahead, around the session"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x, is_last in lookahead(session.batches(loader)):
            it.step(x * (2 if is_last else 1))
        it.work()


def looked_ahead_inside(session, tick):
    """a generator that fetches one batch ahead, around the loader"""

    class Ahead:
        def __init__(self, loader):
            self.loader = loader

        def __iter__(self):
            return lookahead(self.loader)

        def __len__(self):
            return len(self.loader)

    it, loader = Trainee(session, tick), Ahead(data())
    for _ in session.epochs(2):
        for x, is_last in session.batches(loader):
            it.step(x * (2 if is_last else 1))
        it.work()


def window_left_open(session, tick):
    """``accumulate=3`` over 4 batches: the last batch ends its step alone"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(3):
        for x in session.batches(loader, accumulate=3):
            it.step(x, updates=session.ends_step)
        it.work()


def window_left_open_by_break(session, tick):
    """``accumulate=2`` left in the middle of a window, whose gradients go into the next one"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(3):
        for x in session.batches(loader, accumulate=2):
            it.step(x, updates=session.ends_step)
            if session.batch == 2:
                break
        it.work()


def window_over_epochs(session, tick):
    """a window of 3 batches counted over the ends of epochs, in a ``session.value``"""
    it, loader = Trainee(session, tick), data()
    seen = session.value("seen", 0)
    for _ in session.epochs(3):
        for x in session.batches(loader):
            seen.value += 1
            it.step(x, updates=seen.value % 3 == 0)
        it.work()


def window_of_batch_numbers(session, tick):
    """a window of 3 batches of 4 counted by ``session.batch``, the rest of which is left to the next epoch"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(3):
        for x in session.batches(loader):
            it.step(x, updates=session.batch % 3 == 2)
        it.work()


def window_counted(session, tick):
    """a window counted by a variable of the script"""
    it, loader, seen = Trainee(session, tick), data(), 0
    for _ in session.epochs(3):
        for x in session.batches(loader):
            seen += 1
            it.step(x, updates=seen % 3 == 0)
        it.work()


def window_counted_by_enumerate(session, tick):
    """a window counted by ``enumerate``, whose rest is dropped with the gradients at the epoch's end"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(3):
        for number, x in enumerate(session.batches(loader)):
            it.step(x, updates=(number + 1) % 2 == 0)
        it.optimizer.zero_grad()
        it.work()


class Reads(Dataset):
    """Its samples depend on how many were read."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.reads += 1
        return torch.full((3,), index / 8) + self.reads / 16 + 0.1 * torch.rand(3)


def exact_loader(session, tick, *, workers=0):
    """``trainerd.exact(loader)`` over a dataset that counts"""
    it = Trainee(session, tick)
    loader = trainerd.exact(DataLoader(Reads(), 2, shuffle=True, num_workers=workers))
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
        it.work()


def exact_loader_with_workers(session, tick):
    """``trainerd.exact(loader)`` over a dataset that counts in two workers"""
    exact_loader(session, tick, workers=2)


def loaders_by_epoch(session, tick):
    """two loaders, each for every other epoch"""
    it, loaders = Trainee(session, tick), [data(1), DataLoader(Reads(), 3)]
    session.loaders = loaders  # which live to the end, as those of a module do
    for epoch in session.epochs(4):
        for x in session.batches(loaders[epoch % 2]):
            it.step(x)
        it.work()


def loaders_by_step(session, tick):
    """two loops open at once, one step of each in turn"""
    it = Trainee(session, tick)
    feeds = [iter(session.batches(data(1))), iter(session.batches(data(2)))]
    for number in range(6):
        it.step(next(feeds[number % 2]))


def loaders_in_one(session, tick):
    """a generator that draws from two loaders in turn, as the loader"""
    it = Trainee(session, tick)

    class Alternating:
        def __init__(self, *loaders):
            self.loaders = loaders

        def __iter__(self):
            for pair in zip(*self.loaders, strict=True):
                yield from pair

        def __len__(self):
            return 2 * len(self.loaders[0])

    loader = Alternating(data(1, 4), data(2, 4))
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
        it.work()


def plain_loader_beside(session, tick):
    """the iterator of a plain loader, one batch of which each step takes, begun again at its end"""
    it, loader, other = Trainee(session, tick), data(), data(1, 6)
    beside = iter(other)
    for _ in session.epochs(2):
        for x in session.batches(loader):
            y = next(beside, None)
            if y is None:
                beside = iter(other)
                y = next(beside)
            it.step(x - 0.5 * y)
        it.work()


def endless_beside(session, tick):
    """``itertools.cycle(list)`` beside the loop, one value of which each step takes"""
    it, loader, beside = Trainee(session, tick), Again(), itertools.cycle([0.1, 0.2, 0.3])
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x + next(beside))
        it.work()


EXACT = [
    zip_with_a_constant,
    curriculum,
    curriculum_within_a_pass,
    curriculum_in_a_closure,
    curriculum_by_model,
    curriculum_of_a_value,
    chained,
    mapped,
    generator_expression,
    taken_while,
    growing_batches,
    growing_batches_in_place,
    batches_grown_by_losses,
    looked_ahead_inside,
    window_left_open,
    window_left_open_by_break,
    exact_loader,
    exact_loader_with_workers,
    loaders_by_epoch,
    loaders_in_one,
]
TOLD = [
    filtered,
    zip_with_noise,
    zip_longest,
    summed_up,
    zip_with_a_list,
    zip_with_a_count,
    zip_with_a_generator,
    zip_with_a_cycle,
    zip_in_the_second_loop,
    numbered_by_enumerate,
    cycled,
    sliced,
    sliced_in_the_second_loop,
    sliced_below_a_generator,
    sliced_forever,
    batches_grown_after_loop,
    looked_ahead,
    window_over_epochs,
    window_of_batch_numbers,
    window_counted,
    window_counted_by_enumerate,
    loaders_by_step,
    plain_loader_beside,
    endless_beside,
]
