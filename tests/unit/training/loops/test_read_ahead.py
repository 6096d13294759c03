"""Batches that are pulled before the ones before were trained are an error, or a reason not to be exact."""

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from tests.support.loop_shapes import Bar, Moved, Points  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture
from trainerd.errors import UserError  # noqa: E402

pytestmark = pytest.mark.torch


class DataPrefetcher:
    """NVIDIA's: holds the next batch already."""

    def __init__(self, loader, move=lambda x: x):
        self.loader, self.move = iter(loader), move
        self.preload()

    def preload(self):
        self.waiting = next(self.loader, None)
        if self.waiting is not None:
            self.waiting = self.move(self.waiting)

    def next(self):
        batch = self.waiting
        if batch is not None:
            self.preload()
        return batch


class Ahead:
    """An iterator that yields the batch before the one that it has just taken."""

    def __init__(self, batches):
        self.batches = iter(batches)
        self.waiting = next(self.batches)

    def __iter__(self):
        return self

    def __next__(self):
        if self.waiting is None:
            raise StopIteration
        batch, self.waiting = self.waiting, next(self.batches, None)
        return batch


def prefetch(batches):
    """Timm's ``PrefetchLoader.__iter__``."""
    is_first, batch = True, None
    for following in batches:
        if not is_first:
            yield batch
        is_first, batch = False, following
    yield batch


def in_while(session, loader, move=lambda x: x):
    prefetcher = DataPrefetcher(session.batches(loader), move)
    batch = prefetcher.next()
    while batch is not None:
        yield batch
        batch = prefetcher.next()


def pairs(session, loader):
    batches = iter(session.batches(loader))
    for one, other in zip(batches, batches, strict=True):
        yield torch.cat([one, other])


AHEAD = {
    "data_prefetcher": in_while,
    "prefetch_loader": lambda session, loader: prefetch(session.batches(loader)),
    "iterator": lambda session, loader: Ahead(session.batches(loader)),
    "list": lambda session, loader: list(session.batches(loader)),
    "pairs": pairs,
}


def trained(tmp_path, feed, *, skipped=(), **settings):
    """Train on what `feed` yields. Return the kinds of the reasons not to be exact."""
    with trainerd.session(tmp_path, seed=0, every={"seconds": None}, **settings) as session:
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(1):
            for x in feed(session, torch.utils.data.DataLoader(Points(), 2)):
                if session.batch in skipped:
                    continue
                model(x).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        return {reason.kind for reason in session._run.suspicions.reasons}


@pytest.mark.parametrize("feed", AHEAD.values(), ids=AHEAD)
def test_batches_that_are_read_ahead_are_an_error_that_says_where(tmp_path, feed):
    with pytest.raises(UserError, match=r"\.py:\d+: session\.batches is read ahead") as caught:
        trained(tmp_path, feed)
    assert "session.batches(prefetch(loader))" in caught.value.hint


def test_without_strictness_they_are_a_reason_not_to_be_exact(tmp_path):
    assert "read-ahead" in trained(tmp_path, AHEAD["prefetch_loader"], strict=False)


def test_a_copy_of_the_batch_leaves_no_proof_but_a_reason(tmp_path):
    def moved(session, loader):
        return in_while(session, loader, move=lambda x: x * 1.0)

    assert "read-ahead" in trained(tmp_path, moved)


@pytest.mark.parametrize(
    "feed",
    [
        lambda session, loader: session.batches(loader),
        lambda session, loader: Bar(session.batches(loader)),
        lambda session, loader: Moved(session.batches(loader)),
        lambda session, loader: session.batches(Again(loader)),
    ],
    ids=["plain", "bar", "moved", "inside"],
)
@pytest.mark.parametrize("skipped", [(), (0,), (0, 1)], ids=str)
def test_a_loop_that_skips_its_first_batches_is_no_such_thing(tmp_path, feed, skipped):
    assert "read-ahead" not in trained(tmp_path, feed, skipped=skipped)


class Again:
    """A prefetching loader that can be begun again."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return prefetch(self.loader)


def test_a_loop_of_batches_taken_by_hand_may_end_before_it_trains(tmp_path):
    def looked_at_first(session, loader):
        next(iter(session.batches(loader)))
        return session.batches(loader)

    assert "read-ahead" not in trained(tmp_path, looked_at_first)
