"""Changed scripts are run, struck and compared: they end with the weights of the plain script."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("libcst")

from torch.utils.data import DataLoader  # noqa: E402

import trainerd  # noqa: E402 - only where torch is
from tests.support.struck import StruckRun  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture
from tests.unit.adoption.scripts_that_adopt import DRAWS_OR_SHUFFLES, RIGHT  # noqa: E402
from trainerd.adoption.adopt_script import adopt_source  # noqa: E402

pytestmark = pytest.mark.torch

EVERYDAY = {"running_loss", "bar_kept", "stop_iteration", "while_steps"}
"""Scripts that are run every day; the first is struck as well, at a few places. All others are slow."""

STRUCK = "running_loss"


class Weights:
    """The parameters that the last step of an optimizer left."""

    def __init__(self, monkeypatch):
        self.last = []
        for kind in {
            torch.optim.SGD,
            torch.optim.Adam,
            torch.optim.AdamW,
            torch.optim.Adadelta,
            torch.optim.RMSprop,
        }:
            step = kind.step

            def noted(optimizer, *arguments, step=step, **options):
                result = step(optimizer, *arguments, **options)
                self.last = [
                    each.detach().clone() for group in optimizer.param_groups for each in group["params"]
                ]
                return result

            monkeypatch.setattr(kind, "step", noted)


def drawing_nothing(function):
    def wrapped(loader):
        with torch.random.fork_rng(devices=[]):
            return function(loader)

    return wrapped


def shape_of(monkeypatch, text):
    """Return the changed script as a shape: struck where it logs, and at each epoch."""
    code = compile(text, "<adopted>", "exec")

    def shape(session, tick):
        log, epochs = session.log, session.epochs

        def ticking_log(**values):
            log(**values)
            tick()

        def ticking_epochs(*arguments, **options):
            for epoch in epochs(*arguments, **options):
                tick()
                yield epoch
                tick()

        session.log, session.epochs = ticking_log, ticking_epochs
        with monkeypatch.context() as patched:
            patched.setattr(trainerd, "session", lambda **settings: contextlib.nullcontext(session))
            exec(code, {"__name__": "__main__"})

    return shape


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in EVERYDAY else pytest.mark.slow) for name in sorted(RIGHT)],
)
def test_undisturbed_the_changed_script_trains_what_the_plain_one_does(tmp_path, monkeypatch, capsys, name):
    weights = Weights(monkeypatch)
    plain = RIGHT[name]
    if name in DRAWS_OR_SHUFFLES:
        # What a session does otherwise, as documented: the order of a loader that shuffles, and the number
        # that a plain loader draws from the global generator at each loop. All else is equal.
        plain = plain.replace(", shuffle=True", "").replace(
            "EPOCHS = 2\n", "EPOCHS = 2\ntorch.manual_seed(3)\n"
        )
    with monkeypatch.context() as patched:
        if name in DRAWS_OR_SHUFFLES:
            patched.setattr(DataLoader, "__iter__", drawing_nothing(DataLoader.__iter__))
        exec(compile(plain, "<plain>", "exec"), {"__name__": "__main__"})
    expected, shown = weights.last, capsys.readouterr().out
    assert StruckRun(monkeypatch, tmp_path, shape_of(monkeypatch, adopt_source(plain).text)).attempt()
    assert len(weights.last) == len(expected)
    assert all(map(torch.equal, weights.last, expected))
    if "time.time()" not in RIGHT[name]:
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == STRUCK else pytest.mark.slow) for name in sorted(RIGHT)]
)
def test_struck_anywhere_the_changed_script_ends_in_the_same_state(tmp_path, monkeypatch, name):
    shape = shape_of(monkeypatch, adopt_source(RIGHT[name]).text)
    undisturbed = StruckRun(monkeypatch, tmp_path / "undisturbed", shape)
    expected = undisturbed.result()
    places = range(1, undisturbed.ticks + 1)
    assert places
    step = 9 if name == STRUCK else 3
    wrong = []
    for kind in ("SIGKILL", "SIGTERM"):
        for at in places[len(kind) % 2 :: step]:
            found = StruckRun(monkeypatch, tmp_path / f"{kind}-{at}", shape).result(kind, at)
            if (found.files, found.rows) != (expected.files, expected.rows):
                wrong.append(f"{kind} at {at}")
    assert not wrong, f"{wrong} of {len(places)} places"
