"""Loaders that know their own position, resumed at each boundary, and once more after that."""

import contextlib
import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tests.support.in_process import Crash, attempt, disturbed, undisturbed
from tests.support.in_process_drain import drained_at
from tests.support.stateful_loaders import AtMultiples
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume
from trainerd.training.data.feed import Feed

pytestmark = pytest.mark.torch

PASS = 4
LEFT = "the first of two is left"


def point(value):
    return torch.tensor([float(value), 1.0]) / 32


class SetBack(AtMultiples):
    """Is at its beginning before the last sample is handed out."""

    def __iter__(self):
        for _ in range(PASS - self.at):
            self.at = (self.at + 1) % PASS
            yield point(self.at)


class SetBackLate(AtMultiples):
    """Is at its beginning once it is asked for a sample that it does not have."""

    def __iter__(self):
        while self.at < PASS:
            self.at += 1
            yield point(self.at)
        self.at = 0


class Stream(SetBack, IterableDataset):
    """A dataset that is in a loader's state."""


class Stateless(IterableDataset):
    def __iter__(self):
        for value in range(2 * PASS):
            yield point(value)


class WithState(Dataset):
    def __len__(self):
        return 2 * PASS

    def __getitem__(self, index):
        return point(index)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class ByEpoch:
    """Yields another order in each epoch that it is told."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([index * (2 * self.epoch + 1) % (2 * PASS) for index in range(2 * PASS)])

    def __len__(self):
        return 2 * PASS


def of_torchdata(dataset, **options):
    loaders = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    return loaders.StatefulDataLoader(dataset, batch_size=2, **options)


def of_nodes():
    nodes = pytest.importorskip("torchdata.nodes", reason="torchdata is not installed")
    return nodes.Loader(nodes.Batcher(nodes.SamplerWrapper(ByEpoch()), 2))


def of_hugging_face(*, is_shuffled=False):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.Dataset.from_dict({"x": [[index / 30] * 2 for index in range(2 * PASS)]})
    stream = rows.to_iterable_dataset(num_shards=2).with_format("torch")
    return stream.shuffle(buffer_size=4, seed=1) if is_shuffled else stream


KINDS = {
    "at multiples": AtMultiples,
    "set back": SetBack,
    "set back late": SetBackLate,
    "torchdata's nodes": of_nodes,
    "torchdata's, of a stream": lambda: of_torchdata(Stateless()),
    "torchdata's, of a stream with a state": lambda: of_torchdata(Stream()),
    "torchdata's, of a stream, in workers": lambda: of_torchdata(Stateless(), num_workers=2),
    "torchdata's, of a dataset with a state": lambda: of_torchdata(WithState(), shuffle=True),
    "torchdata's, of a sampler that is told the epoch": lambda: of_torchdata(WithState(), sampler=ByEpoch()),
    "Hugging Face's": lambda: of_hugging_face().batch(2),
    "Hugging Face's, shuffled": lambda: of_hugging_face(is_shuffled=True).batch(2),
    "Hugging Face's in torchdata's": lambda: of_torchdata(of_hugging_face()),
    "Hugging Face's in torchdata's workers": lambda: of_torchdata(of_hugging_face(), num_workers=2),
    "two in step": lambda: (AtMultiples(), SetBackLate()),
    "with a stream in step": lambda: (DataLoader(Stateless(), batch_size=2), AtMultiples()),
}


def values(batch):
    if isinstance(batch, tuple):
        return values(batch[0]) + 3 * values(batch[1])
    if isinstance(batch, dict):
        batch = batch["x"]
    return sum(torch.as_tensor(each, dtype=torch.float32).sum() for each in batch)


def loop_over(made, loops, *, leaves_first=False):
    def loop(session, tick):
        loader = made()
        loaders = loader if isinstance(loader, tuple) else (loader,)
        seen = session.value("seen", [])
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(2):
            for number in range(loops):
                for batch in session.batches(*loaders):
                    seen.value = [*seen.value, values(batch).item()]
                    session.log(loss=values(batch))
                    tick()
                    if leaves_first and number == 0 and session.batch == 1:
                        break

    return loop


def is_exact(tmp_path, loop, struck_at):
    """Kill a run at each of some calls, and once more at the second or third call after that, if there is."""
    expected = undisturbed(tmp_path / "left-alone", loop, steps=1)
    calls = len(expected.rows)
    for call in [call for call in struck_at or range(2, calls + 1) if call <= calls]:
        for crashes in ((call, 2), (call, 3)) if call + 2 <= calls else ((call,),):
            run_dir = tmp_path / "-".join(map(str, crashes))
            assert disturbed(run_dir, loop, crashes, steps=1) == expected, crashes


@pytest.mark.parametrize("kind", ["at multiples", "torchdata's nodes", "torchdata's, of a stream"])
def test_a_run_killed_around_the_end_of_a_loop_has_the_batches_of_one_left_alone(
    tmp_path, saved_each_time, kind
):
    is_exact(tmp_path, loop_over(KINDS[kind], 2), (PASS, PASS + 1, 2 * PASS + 1))


def test_a_loader_that_is_drawn_from_alone_and_in_step_goes_on_from_where_it_was(tmp_path, saved_each_time):
    def loop(session, tick):
        alone, other = AtMultiples(), AtMultiples()
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(2):
            for loaders in ((alone,), (other, alone)):
                for batch in session.batches(*loaders):
                    session.log(loss=values(batch))
                    tick()

    is_exact(tmp_path, loop, (PASS, PASS + 2, 2 * PASS))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "loops"),
    [(kind, 2) for kind in KINDS]
    + [(kind, loops) for kind in ("at multiples", "torchdata's nodes") for loops in (1, LEFT)],
)
def test_so_has_one_killed_anywhere(tmp_path, saved_each_time, kind, loops):
    is_left = loops == LEFT
    is_quick = kind in {"at multiples", "two in step"}
    takes_long = "workers" in kind or "Hugging Face" in kind
    struck_at = None if is_quick else (PASS, PASS + 1) if takes_long else (2, PASS, PASS + 1, 2 * PASS + 1)
    is_exact(tmp_path, loop_over(KINDS[kind], 2 if is_left else loops, leaves_first=is_left), struck_at)


def test_a_step_counts_whose_loader_then_raises(tmp_path):
    class Breaking(AtMultiples):
        def __iter__(self):
            yield point(1)
            yield point(2)
            raise ValueError("no more cheese")

    with pytest.raises(ValueError, match="no more cheese"):
        attempt(tmp_path, loop_over(Breaking, 1), steps=1)
    rows = [json.loads(line) for line in RunPaths(tmp_path).metrics.read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]


def test_a_drain_notes_the_batch_that_was_fetched_ahead(tmp_path):
    loop = loop_over(AtMultiples, 2)
    drained_at(tmp_path / "run", loop, 6)
    assert json.loads(RunPaths(tmp_path / "run").witness.read_bytes())["batch"] == 2
    assert attempt(tmp_path / "run", loop)
    found = read_resume(RunPaths(tmp_path / "run").resume)
    assert (found.verdict, found.is_witnessed) == ("exact", True)


def test_a_pass_that_is_empty_after_a_state_of_an_end_is_begun_once_more_and_named(tmp_path, capfd):
    class FromLoaded(AtMultiples):
        start = 0

        def load_state_dict(self, state):
            self.start = state["at"]

        def __iter__(self):
            self.at, self.start = self.start, 0
            while self.at < PASS:
                self.at += 1
                yield point(self.at)

    loop = loop_over(FromLoaded, 1)
    expected = undisturbed(tmp_path / "left-alone", loop, steps=1)
    assert disturbed(tmp_path / "struck", loop, (PASS + 1,), steps=1).rows == expected.rows
    assert (
        "FromLoaded: had no batch after the state of the end of a pass was loaded" in capfd.readouterr().err
    )


@pytest.mark.parametrize("is_part", [True, False])
def test_a_part_that_is_tracked_by_itself_is_named(tmp_path, capfd, is_part):
    class Over(AtMultiples):
        def __init__(self, inner):
            self.inner = inner

    def loop(session, tick):
        inner, outer = AtMultiples(), AtMultiples()
        session.track(model=nn.Linear(1, 1), inner=inner, outer=outer)
        loader = Over(inner if is_part else None) if is_part else outer
        loader.at = 0
        for _ in session.epochs(1):
            for batch in session.batches(loader):
                session.log(loss=batch.sum())
                tick()

    with contextlib.suppress(Crash):
        disturbed(tmp_path, loop, (3,), steps=1)
    said = "no batch can be fetched ahead: inner, which is tracked, is part of it"
    assert (said in capfd.readouterr().err) == is_part


@pytest.mark.parametrize("has_length", [True, False])
def test_a_framework_that_asks_for_batches_itself_is_named(has_length):
    class Sized(AtMultiples):
        def __len__(self):
            return PASS

    found = []
    feed = Feed(1, suspect=found.append, warn=lambda message: None)
    assert len(list(feed.iterate(Sized() if has_length else AtMultiples()))) == PASS
    assert [reason.kind for reason in found] == ([] if has_length else ["silent-end"])
