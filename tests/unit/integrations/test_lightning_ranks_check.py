"""Ranks of a Lightning trainer that are not those of the session are refused before the first step."""

import pytest

from trainerd.errors import UserError
from trainerd.training.integrations.lightning_ranks import check_ranks


@pytest.mark.parametrize(
    ("rank", "world_size", "environ"), [(0, 1, {}), (1, 2, {"RANK": "1", "WORLD_SIZE": "2"})]
)
def test_ranks_that_agree_are_accepted(rank, world_size, environ):
    check_ranks(rank, world_size, environ)


# Lightning sets WORLD_SIZE and no RANK where it starts the ranks itself, or neither where it forks them.
@pytest.mark.parametrize("environ", [{}, {"WORLD_SIZE": "2"}])
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_lightning_starts_are_refused_where_the_session_cannot_tell_them_apart(rank, environ):
    with pytest.raises(UserError, match="Lightning starts itself") as refused:
        check_ranks(rank, 2, environ)
    assert "nproc: 2" in str(refused.value.hint)


def test_a_trainer_that_trains_alone_beside_other_ranks_is_refused():
    with pytest.raises(UserError, match="2 ranks were started") as refused:
        check_ranks(0, 1, {"RANK": "1", "WORLD_SIZE": "2"})
    assert "devices=2" in str(refused.value.hint)
