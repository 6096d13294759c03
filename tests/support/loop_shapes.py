"""Training loops as people write them. The first line of each docstring says which form it has.

Each is a whole script but for its session. It calls `tick` wherever it may be struck: in the body of a step,
between the last step and what follows the loop, and in the work between loops and after the last epoch.
"""

from __future__ import annotations

import contextlib
import copy
import itertools

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

BATCHES = 4


class Points(Dataset):
    """Points with noise."""

    def __init__(self, seed=0, length=2 * BATCHES):
        self.x = torch.randn(length, 3, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.1 * torch.rand(3)


class Again:
    """An iterable of unknown length that can be begun again."""

    def __init__(self, length=BATCHES):
        self.length = length

    def __iter__(self):
        return (torch.full((2, 3), number / 4) for number in range(self.length))


class Counting:
    """A loader with a state of its own, which goes on from pass to pass."""

    def __init__(self):
        self.at = self.passes = 0

    def state_dict(self):
        return {"at": self.at, "passes": self.passes}

    def load_state_dict(self, state):
        self.at, self.passes = state["at"], state["passes"]

    def __iter__(self):
        while self.at < 3:
            self.at += 1
            yield torch.full((2, 3), self.at + 10.0 * self.passes) / 10
        self.at, self.passes = 0, self.passes + 1


class Bar:
    """A progress bar: it keeps what it iterates over."""

    def __init__(self, iterable):
        self.iterable = iterable
        self.total = len(iterable)

    def __iter__(self):
        for item in self.iterable:  # noqa: UP028 - as such bars do
            yield item


class Moved:
    """A wrapper with a ``__next__`` of its own, as device loaders are."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        self.iterator = iter(self.batches)
        return self

    def __next__(self):
        return next(self.iterator) * 1.0


class EarlyStop(Exception):  # noqa: N818 - what it stands for is no error
    """The script has trained enough."""


class Trainee:
    """A model that notices everything: dropout, momentum, and a rate that a scheduler changes."""

    def __init__(self, session, tick, **more):
        self.session, self.tick = session, tick
        self.model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.3), nn.BatchNorm1d(2), nn.Linear(2, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.8)
        session.track(model=self.model, optimizer=self.optimizer, schedule=self.schedule, **more)

    def step(self, x, *, updates=True):
        loss = self.model(x).square().mean()
        loss.backward()
        if updates:
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.session.log(loss=loss)
        self.tick()

    def work(self):
        """Change the state, as the code between two loops may."""
        self.schedule.step()
        self.tick()
        with torch.no_grad():
            self.model[0].weight.add_(0.01 * torch.rand(2, 3))

    def evaluate(self, data=None):
        total = 0.0
        self.model.eval()
        with torch.no_grad():
            for x in self.session.batches(data or DataLoader(Points(5, 4), 2), train=False):
                total += float(self.model(x + 0.1 * torch.rand(3)).sum())
            self.tick()
        self.model.train()
        return total


def data(seed=0, length=2 * BATCHES):
    return DataLoader(Points(seed, length), 2, shuffle=True)


def plain(session, tick):
    """``for x in session.batches(loader)`` within ``for epoch in session.epochs(n)``"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
        it.work()
        session.report(score=it.evaluate())


def unknown_length(session, tick):
    """an iterable without ``len()``"""
    it, loader = Trainee(session, tick), Again()
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
        it.work()


def accumulation(session, tick):
    """``accumulate=2`` with a rest, over a loader with and one without ``len()``"""
    it, loaders = Trainee(session, tick), [data(), Again(3)]
    for _ in session.epochs(1):
        for loader in loaders:
            for x in session.batches(loader, accumulate=2):
                it.step(x, updates=session.ends_step or (session.batch == 2 and loader is loaders[1]))
            it.work()


def breaks(session, tick):
    """``break``"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
            if session.batch == 2:
                break
        it.work()
        session.report(score=it.evaluate())


def continues(session, tick):
    """``continue``, and ``else`` of a loop whose ``break`` does not come"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in session.batches(loader):
            if session.batch == 1:
                continue
            if session.step > 99:
                break
            it.step(x)
        else:
            it.work()


def returns(session, tick):
    """``return`` from a function that trains one epoch"""
    it, loader = Trainee(session, tick), data()

    def one_epoch():
        for x in session.batches(loader):
            it.step(x)
            if session.batch == 2:
                return session.step
        return None

    for _ in session.epochs(2):
        one_epoch()
        it.work()


def returns_from_all(session, tick):
    """``return`` out of the loops over batches and epochs at once"""
    it, loader = Trainee(session, tick), data()

    def train():
        for epoch in session.epochs(5):
            for x in session.batches(loader):
                it.step(x)
                if epoch == 1 and session.batch == 1:
                    return
            it.work()

    train()
    it.work()


def exception_caught(session, tick):
    """an exception that ends the loop and is caught outside it"""
    it, loader, other = Trainee(session, tick), data(), data(1, 2)
    for _ in session.epochs(2):
        try:
            for x in session.batches(loader):
                it.step(x)
                if session.batch == 2:
                    raise EarlyStop  # noqa: TRY301 - as scripts do
        except EarlyStop:
            it.work()
        session.report(score=it.evaluate())
        for x in session.batches(other):
            it.step(x)


def exception_out_of_epochs(session, tick):
    """an exception that ends the loop over epochs too"""
    it, loader = Trainee(session, tick), data()
    with contextlib.suppress(EarlyStop):
        for epoch in session.epochs(9):
            for x in session.batches(loader):
                it.step(x)
                if epoch == 1 and session.batch == 1:
                    raise EarlyStop
            it.work()
    it.work()


def iterator_kept(session, tick):
    """``break`` while a progress bar keeps the iterator; another loop follows"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        bar = Bar(session.batches(loader))
        for x in bar:
            it.step(x)
            if session.batch == 2:
                break
        it.work()
        bar = Bar(session.batches(loader))
        for x in bar:
            it.step(x)
            if session.batch == 1:
                break
        it.work()


def break_epochs(session, tick):
    """``break`` out of ``session.epochs``, whose epochs have no ``session.batches``"""
    it = Trainee(session, tick)
    for epoch in session.epochs(100):
        it.step(torch.rand(2, 3))
        it.work()
        if epoch == 3:
            break
    it.work()


def early_stopping(session, tick):
    """``break`` out of ``session.epochs`` for a ``session.value``"""
    it, loader = Trainee(session, tick), data()
    bad = session.value("bad", 0)
    for _ in session.epochs(9):
        for x in session.batches(loader):
            it.step(x)
        it.evaluate()
        bad.value += 1
        session.report(bad=bad.value)
        if bad.value == 2:
            break
    it.work()


def two_phases(session, tick):
    """two loops over epochs, the first left early"""
    it, loader = Trainee(session, tick), data(length=4)
    for epoch in session.epochs(9):
        for x in session.batches(loader):
            it.step(x)
        if epoch == 1:
            break
    it.work()
    for _ in session.epochs(4):
        for x in session.batches(loader):
            it.step(x)
        it.work()


def in_step(session, tick):
    """``session.batches(a, b)`` draws from two loaders in step"""
    it, one, other = Trainee(session, tick), data(1), data(2, 6)
    for _ in session.epochs(2):
        for x, y in session.batches(one, other):
            it.step(x - 0.5 * y)
        it.work()


def next_forever(session, tick):
    """``while True: next(it)``, begun again at each StopIteration"""
    it, loader = Trainee(session, tick), data(length=6)
    batches = iter(session.batches(loader))
    while True:
        try:
            x = next(batches)
        except StopIteration:
            batches = iter(session.batches(loader))
            x = next(batches)
        it.step(x)
        if session.step >= 8:
            break
    it.work()


def next_in_phases(session, tick):
    """an explicit ``next`` over two loaders, one phase after the other, and a look at one batch before"""
    it, one, other = Trainee(session, tick), data(1), data(2)
    example = next(iter(session.batches(one)))
    assert example.shape == (2, 3)
    for loader in (one, other):
        batches = iter(session.batches(loader))
        while True:
            it.step(next(batches))
            if session.batch == 2:
                break
        it.work()


def cycle(session, tick):
    """a generator that begins a loop for each pass"""
    it, loader = Trainee(session, tick), data(length=6)

    def forever():
        while True:
            yield from session.batches(loader)

    batches = forever()
    while True:
        it.step(next(batches))
        if session.step >= 6:
            break
    it.work()


def endless_loader(session, tick):
    """an endless generator as the loader, left by a ``break``"""
    it = Trainee(session, tick)

    class Forever:
        def __iter__(self):
            return (torch.full((2, 3), number / 4) for number in itertools.count())

    for x in session.batches(Forever()):
        it.step(x)
        if session.step >= 6:
            break
    it.work()


def counted_steps(session, tick):
    """``for step in session.steps(total)`` with batches of the script's own"""
    it = Trainee(session, tick)
    for step in session.steps(7):
        assert step == session.step
        it.step(torch.rand(2, 3))
    it.work()


def counted_steps_in_epochs(session, tick):
    """``session.steps(n)`` within ``session.epochs(n, max_steps=…)``"""
    it = Trainee(session, tick)
    for _ in session.epochs(None, max_steps=7):
        for _ in session.steps(3):
            it.step(torch.rand(2, 3))
        it.work()
        session.report(score=it.evaluate())


def max_steps(session, tick):
    """``session.epochs(n, max_steps=…)`` with accumulation"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(9, max_steps=3):
        for x in session.batches(loader, accumulate=2):
            it.step(x, updates=session.ends_step)
        it.work()
    it.work()


def numbered(session, tick):
    """``session.enumerate(loader)``"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for number, x in session.enumerate(loader):
            assert number == session.batch
            it.step(x + number)
        it.work()


def wrapped(session, tick):
    """wrappers with a ``__next__`` of their own"""
    it, loader = Trainee(session, tick), data()
    for _ in range(3):
        for x in Moved(Bar(session.batches(loader))):
            it.step(x)
        it.work()


def plain_range(session, tick):
    """``for epoch in range(n)`` around ``session.batches``, with a report for each"""
    it, loader = Trainee(session, tick), data(length=4)
    for epoch in range(3):
        session.log(rate=it.optimizer.param_groups[0]["lr"] if session.batch == 0 else 0)
        for x in session.batches(loader):
            it.step(x)
        it.work()
        session.report(score=it.evaluate(), number=epoch)


def evaluation_first(session, tick):
    """evaluation, ``report`` and ``log`` before the loop, and evaluation within it"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        before = it.evaluate(DataLoader(Points(5, 4), 2))
        session.report(before=before)
        for x in session.batches(loader):
            it.step(x)
            if session.batch == 2:
                session.report(within=it.evaluate(DataLoader(Points(6, 4), 2)))
                it.tick()
        session.report(after=it.evaluate(DataLoader(Points(5, 4), 2)))


def after_last_epoch(session, tick):
    """work after the last epoch: ``update_bn``, the best weights put back, a last report"""
    best = session.value("best", None)
    it, loader = Trainee(session, tick), data()
    for epoch in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
        if epoch == 0:
            best.value = copy.deepcopy(it.model.state_dict())
    it.model.load_state_dict(best.value)
    it.work()
    torch.optim.swa_utils.update_bn([torch.rand(4, 3), torch.rand(4, 3)], it.model)
    it.work()
    session.report(last=it.evaluate())
    it.work()


def phases(session, tick):
    """``for phase in ("train", "val")``"""
    it, loaders = Trainee(session, tick), {"train": data(1, 6), "val": data(2, 4)}
    for _ in session.epochs(2):
        for phase in ("train", "val"):
            for x in session.batches(loaders[phase], train=phase == "train"):
                if phase == "train":
                    it.step(x)
                else:
                    it.model(x)  # in training mode: the statistics of the normalisation change
                    it.tick()
        it.work()


def stateful_loader(session, tick):
    """a loader with a state of its own, in ``for epoch in range(n)``"""
    it, loader = Trainee(session, tick), Counting()
    for _ in range(3):
        for x in session.batches(loader):
            it.step(x)
        it.work()


def leaves_when_draining(session, tick):
    """``if session.draining: break``, which no script needs"""
    it, loader = Trainee(session, tick), data()
    for _ in session.epochs(2):
        for x in session.batches(loader):
            it.step(x)
            if session.draining:
                break
        it.work()
        if session.draining:
            break
        it.work()
    it.work()


SHAPES = [
    plain,
    unknown_length,
    accumulation,
    breaks,
    continues,
    returns,
    returns_from_all,
    exception_caught,
    exception_out_of_epochs,
    iterator_kept,
    break_epochs,
    early_stopping,
    two_phases,
    in_step,
    next_forever,
    next_in_phases,
    cycle,
    endless_loader,
    counted_steps,
    counted_steps_in_epochs,
    max_steps,
    numbered,
    wrapped,
    plain_range,
    evaluation_first,
    after_last_epoch,
    phases,
    stateful_loader,
    leaves_when_draining,
]
