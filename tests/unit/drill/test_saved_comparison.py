"""What Checkpointers of two runs saved, compared: exact only if all folders, steps, states and scores are."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from trainerd.drill import saved_comparison
from trainerd.drill.saved_comparison import compare_saved, differing_scores


def run(**folders):
    """Return a run with the checkpoints of each folder, given as (step, state, scores)."""

    def store(name, saves):
        checkpoints = [
            SimpleNamespace(
                manifest=SimpleNamespace(step=step, epoch=0, batch=0, is_final=False, scores=scores),
                state=state,
            )
            for step, state, scores in saves
        ]
        return SimpleNamespace(directory=Path(name), checkpoints=lambda: checkpoints)

    return SimpleNamespace(
        folder=Path("run"), checkpointers=lambda: tuple(store(*each) for each in folders.items())
    )


@pytest.fixture(autouse=True)
def states():
    """A state is one number here."""

    def difference(then, now, *, uncompared, folders):
        return None if then.state == now.state else ("model", f"{then.state} became {now.state}")

    with mock.patch.object(saved_comparison, "checkpoint_difference", difference):
        yield


SAVES = [(4, 1.0, {"loss": 3.0}), (8, 2.0, {"loss": 2.0}), (12, 3.0, {})]


def test_equal_saves_are_exact_and_counted():
    compared = compare_saved(run(a=SAVES, b=SAVES[:1]), run(a=SAVES, b=SAVES[:1]))
    assert (compared.is_exact, compared.states, compared.values) == (True, 4, 3)


def test_a_save_that_only_one_of_them_made_is_left_out_unless_it_is_the_last():
    more = [*SAVES[:1], (6, 9.0, {}), *SAVES[1:]]
    assert compare_saved(run(a=SAVES), run(a=more)).is_exact
    for other in (SAVES[:2], [*SAVES, (16, 4.0, {})]):
        (difference,) = compare_saved(run(a=SAVES), run(a=other)).differences
        assert difference.kind == "end"


def test_a_folder_into_which_only_one_of_them_saves_is_a_difference():
    for one, other in ((run(a=SAVES, b=SAVES), run(a=SAVES)), (run(a=SAVES), run()), (run(), run(a=SAVES))):
        compared = compare_saved(one, other)
        assert [each.kind for each in compared.differences] == ["end"]


def test_another_state_and_another_score_are_differences_at_their_step():
    state = [SAVES[0], (8, 2.5, {"loss": 2.0}), SAVES[2]]
    assert [(each.kind, each.step) for each in compare_saved(run(a=SAVES), run(a=state)).differences] == [
        ("state", 8)
    ]
    score = [SAVES[0], (8, 2.0, {"loss": 2.5}), SAVES[2]]
    assert [(each.kind, each.step) for each in compare_saved(run(a=SAVES), run(a=score)).differences] == [
        ("report", 8)
    ]
    assert differing_scores(run(a=SAVES), run(a=score)) == ("loss",)
