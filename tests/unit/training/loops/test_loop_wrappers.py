"""What iterates around a training loop with a position of its own is an error or a reason, in every loop."""

import collections
import itertools
import re

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from trainerd.errors import UserError  # noqa: E402

pytestmark = pytest.mark.torch

FEW = [1, 2, 3, 4]


def run(tmp_path, feed):
    """Make a plain loop, and one over what a feed makes of a session's batches. Return the reasons."""
    with trainerd.session(tmp_path) as session:
        for batches in (session.batches(FEW), feed(session.batches(list(FEW)))):
            for _ in batches:
                session.log(loss=1.0)
        return [each for each in session._run.suspicions.reasons if each.kind == "zip-beside"]


BESIDE = {
    "list": lambda: FEW,
    "tuple": lambda: tuple(FEW),
    "set": lambda: set(FEW),
    "dict": lambda: dict.fromkeys(FEW),
    "items": lambda: dict.fromkeys(FEW).items(),
    "values": lambda: dict.fromkeys(FEW).values(),
    "text": lambda: "abcd",
    "bytes": lambda: b"abcd",
    "reversed": lambda: reversed(FEW),
    "enumerate": lambda: enumerate(FEW),
    "tensor": lambda: torch.ones(4),
    "cycle": lambda: itertools.cycle(FEW),
    "count": itertools.count,
    "range": lambda: range(9),
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_a_zip_draws_from_at_a_position_is_an_error(tmp_path, beside):
    with pytest.raises(UserError, match="in every attempt") as caught:
        run(tmp_path, lambda batches: zip(batches, beside(), strict=False))
    assert re.search(r"session\.(batches|enumerate)\(loader", caught.value.hint)


@pytest.mark.parametrize("kind", [zip, itertools.zip_longest])
def test_it_may_stand_at_any_place_of_any_zip(tmp_path, kind):
    with pytest.raises(UserError, match="in every attempt"):
        run(tmp_path, lambda batches: kind(itertools.repeat(1), FEW, batches))


class Stateful:
    def __iter__(self):
        return self

    def __next__(self):
        return 1

    def state_dict(self):
        return {}


class Own:
    def __iter__(self):
        return self

    def __next__(self):
        return 1


def values():
    while True:
        yield 1


def test_what_may_have_a_position_is_a_reason(tmp_path):
    (reason,) = run(tmp_path / "a", lambda batches: zip(batches, values(), strict=False))
    assert re.fullmatch(rf".*test_loop_wrappers\.py:{values.__code__.co_firstlineno}", reason.where)
    (reason,) = run(tmp_path / "b", lambda batches: zip(batches, Own(), strict=False))
    assert reason.where == "Own"


@pytest.mark.parametrize("beside", [itertools.repeat(1), Stateful()], ids=["repeat", "stateful"])
def test_what_has_none_is_not(tmp_path, beside):
    assert run(tmp_path, lambda batches: zip(batches, beside, strict=False)) == []


AROUND = {
    "islice": lambda batches: itertools.islice(batches, 2),
    "cycle": itertools.cycle,
    "accumulate": itertools.accumulate,
    "pairwise": itertools.pairwise,
    "dropwhile": lambda batches: itertools.dropwhile(lambda batch: batch < 2, batches),
    "compress": lambda batches: itertools.compress(batches, [1, 0, 1, 1]),
    "zip": lambda batches: zip(batches, FEW, strict=False),
}
THROUGH = {
    "map": lambda batches: map(abs, batches),
    "filter": lambda batches: filter(None, batches),
    "enumerate": enumerate,
    "chain": lambda batches: itertools.chain([0], batches),
    "expression": lambda batches: (batch for batch in batches),
    "starmap": lambda batches: itertools.starmap(abs, ((batch,) for batch in batches)),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_it_is_found_in_every_loop(tmp_path, around):
    with pytest.raises(UserError, match=r"attempt|steps"):
        run(tmp_path, around)


@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_it_is_found_through_other_iterators(tmp_path, through):
    with pytest.raises(UserError, match=r"itertools\.islice"):
        run(tmp_path, lambda batches: itertools.islice(through(batches), 4))
    assert run(tmp_path / "without", through) == []


def test_a_place_in_the_script_is_looked_at_once(tmp_path, monkeypatch):
    looked = collections.Counter()
    monkeypatch.setattr(
        trainerd.training.loop_wrappers, "check_wrapper", lambda *_: looked.update(["looked"])
    )
    with trainerd.session(tmp_path) as session:
        for _ in range(5):
            for _ in session.batches(FEW):
                pass
        for _ in session.batches(FEW):
            pass
    assert looked["looked"] == 2
