"""Loaders of torchdata over datasets without a state are resumed as stock loaders are."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, RandomSampler, Sampler, WeightedRandomSampler

from tests.support.in_process import attempt, disturbed, undisturbed
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume
from trainerd.training.data.map_source import MapSource
from trainerd.training.data.passes import Pass
from trainerd.training.data.sharding import ShardPlan
from trainerd.training.data.sources import source_for
from trainerd.training.data.stateful_source import StatefulSource

pytestmark = pytest.mark.torch

stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")


class Points(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        return torch.full((3,), float(index)) / 30 + 0.1 * torch.rand(3)


class PointsWithState(Points):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Permuted(Sampler):
    """Draws its order where its iterator is made, not at the first sample."""

    def __init__(self):
        self.rng = np.random.RandomState(4)

    def __iter__(self):
        return iter(self.rng.permutation(30).tolist())

    def __len__(self):
        return 30


class PermutedWithState(Permuted):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def loop_over(options):
    def loop(session, tick):
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        loader = stateful.StatefulDataLoader(Points(), batch_size=4, **options())
        for _ in session.epochs(2):
            for batch in session.batches(loader):
                loss = model(batch).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss)
                tick()

    return loop


SAMPLERS = {
    "shuffled": lambda: {"shuffle": True},
    "own generator": lambda: {"shuffle": True, "generator": torch.Generator().manual_seed(3)},
    "of torch": lambda: {"sampler": RandomSampler(Points())},
    "weighted": lambda: {"sampler": WeightedRandomSampler(torch.arange(1.0, 31.0), 30)},
    "of one's own": lambda: {"sampler": Permuted()},
}


def test_it_is_exact_and_its_samples_are_compared(tmp_path):
    loop = loop_over(SAMPLERS["of one's own"])
    expected = undisturbed(tmp_path / "left-alone", loop)
    assert disturbed(tmp_path / "struck", loop, (6,)) == expected
    record = read_resume(RunPaths(tmp_path / "struck").resume)
    assert (record.verdict, record.compared) == ("exact", 2)


def batches_of(source, saved, epoch, begin, end):
    """Return the batches `begin` to `end` of a pass, and the state after them."""
    source.begin(saved, begin)
    torch.manual_seed(epoch + 7)  # what the global generators are does not matter
    batches = list(itertools.islice(source.iterate(Pass((1, 0), epoch), begin, lambda: False), end - begin))
    state = source.saved(end if end < 8 else None)
    return [batch.tolist() for batch in batches], state


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("at", [0, 3])
def test_any_sampler_goes_on_at_any_place(name, at):
    def made():
        torch.manual_seed(5)
        return source_of(stateful.StatefulDataLoader(Points(), batch_size=4, **SAMPLERS[name]()))[0]

    first, whole = made(), made()
    _, saved = batches_of(first, None, 0, 0, 8)
    _, saved = batches_of(first, saved, 1, 0, at) if at else ([], saved)
    _, between = batches_of(whole, None, 0, 0, 8)
    expected = batches_of(whole, between, 1, 0, 8)[0][at:]
    assert batches_of(made(), saved, 1, at, 8)[0] == expected
    assert len(expected) == 8 - at


def source_of(loader):
    found = []
    return source_for(loader, seed=1, warn=lambda message: None, suspect=found.append), found


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda: stateful.StatefulDataLoader(Points()), MapSource),
        (lambda: stateful.StatefulDataLoader(PointsWithState()), StatefulSource),
        (lambda: stateful.StatefulDataLoader(Points(), sampler=PermutedWithState()), StatefulSource),
    ],
    ids=["no state", "dataset with state", "sampler with state"],
)
def test_what_has_a_state_besides_the_position_is_resumed_through_it(made, kind):
    assert isinstance(source_of(made())[0], kind)


def test_each_of_several_ranks_gets_all_that_its_own_sampler_yields():
    source, _ = source_of(stateful.StatefulDataLoader(Points(), batch_size=4))
    assert source.length(Pass((1, 0), 0, ShardPlan(1, 2))) == 8


def test_a_position_of_the_loader_itself_from_the_middle_of_a_pass_is_named():
    source, found = source_of(stateful.StatefulDataLoader(Points(), batch_size=4))
    source.begin({"loader": {}}, 0)
    assert found == []
    source.begin({"loader": {}}, 3)
    assert [reason.kind for reason in found] == ["loader-exchanged"]


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, []),
        ({"shuffle": True}, []),
        ({"sampler": RandomSampler(Points())}, ["sampler-without-state"]),
        ({"sampler": Permuted()}, ["sampler-without-state"]),
        ({"num_workers": 1, "persistent_workers": True}, ["workers-persist"]),
    ],
    ids=["in order", "shuffled", "random sampler", "own sampler", "persistent"],
)
def test_a_loader_with_a_state_that_does_not_hold_all_is_named(options, kinds):
    _, found = source_of(stateful.StatefulDataLoader(PointsWithState(), batch_size=4, **options))
    assert [reason.kind for reason in found] == kinds


def test_that_reason_reaches_the_verdict(tmp_path):
    def loop(session, tick):
        loader = stateful.StatefulDataLoader(PointsWithState(), batch_size=4, sampler=Permuted())
        for _ in session.batches(loader):
            tick()

    assert not attempt(tmp_path / "run", loop, crash_at=5)
    assert attempt(tmp_path / "run", loop)
    assert read_resume(RunPaths(tmp_path / "run").resume).verdict == "suspect"


nodes = pytest.importorskip("torchdata.nodes", reason="torchdata has no nodes")


def loader_of_nodes(sampler, *, is_prefetched=False, may_restart=True):
    node = nodes.Mapper(nodes.SamplerWrapper(sampler), Points().__getitem__)
    node = nodes.Mapper(nodes.Batcher(node, 4, drop_last=False), torch.stack)
    node = nodes.Prefetcher(node, prefetch_factor=2) if is_prefetched else node
    return nodes.Loader(node, restart_on_stop_iteration=may_restart)


class Epochs(Sampler):
    """Has an order by epoch, which the nodes count themselves."""

    def __init__(self):
        self.epoch = -1

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([(index + self.epoch) % 30 for index in range(30)])

    def __len__(self):
        return 30


NODES = {
    "of torch": lambda: RandomSampler(Points()),
    "own generator": lambda: RandomSampler(Points(), generator=torch.Generator().manual_seed(1)),
    "of torchdata": lambda: stateful_samplers.RandomSampler(Points()),
    "epochs": Epochs,
}
stateful_samplers = pytest.importorskip("torchdata.stateful_dataloader.sampler", reason="no torchdata")


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize(("left_at", "at"), [(8, 0), (8, 3), (5, 0), (5, 3)])
@pytest.mark.parametrize("may_restart", [True, False])
def test_nodes_go_on_at_any_place_though_the_pass_before_was_left_early(name, left_at, at, may_restart):
    def made():
        torch.manual_seed(5)
        source, found = source_of(loader_of_nodes(NODES[name](), may_restart=may_restart))
        assert found == []
        return source

    def first_pass(source):
        batches_of(source, None, 0, 0, 9 if left_at == 8 else left_at)
        return source.saved(None)

    first, whole = made(), made()
    saved = first_pass(first)
    _, saved = batches_of(first, None, 1, 0, at) if at else ([], saved)
    first_pass(whole)
    expected = batches_of(whole, None, 1, 0, 9)[0][at:]
    assert batches_of(made(), saved, 1, at, 9)[0] == expected
    assert len(expected) == 8 - at


def test_nodes_that_load_in_threads_are_named():
    _, found = source_of(loader_of_nodes(RandomSampler(Points()), is_prefetched=True))
    assert [reason.kind for reason in found] == ["draws-in-threads"]
    pure = nodes.Loader(nodes.Prefetcher(nodes.SamplerWrapper(RandomSampler(Points())), prefetch_factor=2))
    assert source_of(pure)[1] == []
