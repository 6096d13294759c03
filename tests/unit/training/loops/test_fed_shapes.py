"""However batches reach the step: a run that was struck is exact, or it says why not."""

import pytest

torch = pytest.importorskip("torch")

from tests.support import fed_loop_shapes  # noqa: E402 - only where torch is
from tests.support.struck import StruckRun, struck_reasons, struck_shapes  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture
from trainerd.contract.environment import CHECK  # noqa: E402
from trainerd.contract.resume_record import DIFFERENCES, NOTICES  # noqa: E402
from trainerd.errors import MismatchError, UserError  # noqa: E402
from trainerd.training.engine import caller_check  # noqa: E402

pytestmark = pytest.mark.torch

EVERYDAY = {"curriculum", "loaders_by_epoch", "zip_with_a_list", "numbered_by_enumerate"}
"""Shapes that are struck every day, at every third place."""


@pytest.fixture(autouse=True)
def analysed(monkeypatch):
    """The session analyses the file of the shapes, as if it were the script."""
    monkeypatch.delenv(CHECK, raising=False)
    monkeypatch.setattr(caller_check, "_caller", lambda: fed_loop_shapes.__file__)


def strikes(ticks, *, is_rest):
    """Return strikes at every third place, or at those after them: two of three places in all."""
    return [
        (kind, at)
        for kind in ("SIGKILL", "SIGTERM")
        for at in range(1, ticks + 1)
        if at % 3 == (2 if is_rest else 1)
    ]


def causes(folder):
    """Return the kinds of the causes in the record of the newest resume, without what comparisons found."""
    kinds = struck_reasons(folder).keys() - DIFFERENCES - NOTICES
    return {kind for kind in kinds if not kind.startswith("changed-")}  # which may change nothing


@pytest.mark.parametrize(("shape", "is_rest"), struck_shapes(fed_loop_shapes.EXACT, EVERYDAY))
def test_a_shape_is_exact_and_nothing_is_said_against_it(tmp_path, monkeypatch, shape, is_rest):
    undisturbed = StruckRun(monkeypatch, tmp_path / "undisturbed", shape, checks_wrapper=True)
    expected = undisturbed.result()
    assert expected.rows
    wrong = []
    for kind, at in strikes(undisturbed.ticks, is_rest=is_rest):
        folder = tmp_path / f"{kind}-{at}"
        if StruckRun(monkeypatch, folder, shape).result(kind, at) != expected:
            wrong.append(f"{kind} at {at}")
        if (folder / "resume.json").exists() and (found := causes(folder)):
            wrong.append(f"{kind} at {at}: {found}")
    assert not wrong, f"{shape.__doc__}: {'; '.join(wrong)}; of {undisturbed.ticks} places"


def result_or_hint(run, *strike):
    """Return what a run leaves, or what the error that ended it says to do."""
    try:
        return run.result(*strike)
    except (UserError, MismatchError) as error:
        return error.hint


@pytest.mark.parametrize(("shape", "is_rest"), struck_shapes(fed_loop_shapes.TOLD, EVERYDAY))
def test_a_shape_that_is_not_exact_is_an_error_or_has_a_reason(tmp_path, monkeypatch, shape, is_rest):
    undisturbed = StruckRun(monkeypatch, tmp_path / "undisturbed", shape, checks_wrapper=True)
    expected = result_or_hint(undisturbed)
    if isinstance(expected, str):
        assert expected
        return
    wrong = []
    for kind, at in strikes(undisturbed.ticks, is_rest=is_rest):
        folder = tmp_path / f"{kind}-{at}"
        run = StruckRun(monkeypatch, folder, shape, checks_wrapper=True)
        found = result_or_hint(run, kind, at)
        if found == "" or (not isinstance(found, str) and found != expected and not causes(folder)):
            wrong.append(f"{kind} at {at}")
    assert not wrong, f"{shape.__doc__}: {'; '.join(wrong)}; of {undisturbed.ticks} places"
