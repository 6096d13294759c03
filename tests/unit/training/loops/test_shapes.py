"""Every shape of a training loop is exact after SIGKILL and SIGTERM at every place."""

import pytest

torch = pytest.importorskip("torch")

from tests.support.loop_shapes import SHAPES  # noqa: E402 - only where torch is
from tests.support.struck import StruckRun, struck_shapes  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.torch

EVERYDAY = {
    "plain",
    "breaks",
    "exception_caught",
    "next_forever",
}
"""Shapes that are struck every day; of them, too, two kills of three are slow."""


@pytest.mark.parametrize(("shape", "is_rest"), struck_shapes(SHAPES, EVERYDAY))
def test_a_shape_is_exact_wherever_it_is_struck(tmp_path, monkeypatch, shape, is_rest):
    undisturbed = StruckRun(monkeypatch, tmp_path / "undisturbed", shape)
    expected = undisturbed.result()
    assert expected.rows
    places = range(1, undisturbed.ticks + 1)
    strikes = [("SIGKILL", at) for at in places if (at % 3 != 1) == is_rest]
    if not is_rest:
        strikes += [("SIGTERM", at) for at in places]
    wrong = []
    for kind, at in strikes:
        found = StruckRun(monkeypatch, tmp_path / f"{kind}-{at}", shape).result(kind, at)
        parts = ("files", "rows", "reports")
        if differing := [part for part in parts if getattr(found, part) != getattr(expected, part)]:
            wrong.append(f"{kind} at {at}: {', '.join(differing)}")
    if not undisturbed.attempt() or undisturbed.result() != expected:
        wrong.append("started again when it was finished")
    assert not wrong, f"{shape.__doc__}: {'; '.join(wrong)}; of {len(places)} places"
