"""Ranks that compute one step together get the same batch, over kills and drains."""

from __future__ import annotations

import signal

import pytest

from tests.support.rank_runs import PARALLEL_LOOP, Attempt, run_ranks
from tests.support.training_runs import result_of
from trainerd.contract.exit_codes import DRAINED

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]

LIMIT_S = 100
SAMPLES = 44


def run(folder, *words, world_size=4):
    return run_ranks(folder, *words, script=PARALLEL_LOOP, world_size=world_size, limit_s=LIMIT_S)


def strike(folder, signum, *words, step=3, world_size=4):
    given = (*words, "--strike", 1, step, int(signum))
    with Attempt(folder, *given, script=PARALLEL_LOOP, world_size=world_size) as attempt:
        codes = attempt.wait(LIMIT_S)
    if signum == signal.SIGTERM:
        assert codes == [DRAINED] * world_size, attempt.output
    else:
        assert codes[1] == -signum, attempt.output
    return attempt


def refused(folder, *words):
    with Attempt(folder, *words, script=PARALLEL_LOOP, world_size=4) as attempt:
        codes = attempt.wait(LIMIT_S)
    assert set(codes) == {1}, attempt.output
    return attempt.output


def of_rank(attempts, rank):
    """Return the batches that a rank has used, later attempts in place of former ones, by epoch and step."""
    found = [used for attempt in attempts for used in attempt.used if used.rank == rank]
    return {(used.epoch, used.step): used.indices for used in found}


def check_replicas(attempts, replicas):
    """Each sample was used once an epoch, and the ranks of a replica have used the same ones."""
    for ranks in replicas:
        assert all(of_rank(attempts, rank) == of_rank(attempts, ranks[0]) for rank in ranks)
    for epoch in range(2):
        used = [
            index
            for ranks in replicas
            for key, indices in of_rank(attempts, ranks[0]).items()
            if key[0] == epoch
            for index in indices
        ]
        assert sorted(used) == list(range(SAMPLES))


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_the_ranks_of_a_replica_get_the_same_batches_where_only_the_models_show_it(tmp_path, signum):
    parts = [strike(tmp_path / "run", signum, "fsdp-tp"), run(tmp_path / "run", "fsdp-tp")]
    check_replicas(parts, [(0, 1), (2, 3)])
    whole = run(tmp_path / "undisturbed", "fsdp-tp")
    assert {rank: of_rank(parts, rank) for rank in range(4)} == {
        rank: of_rank([whole], rank) for rank in range(4)
    }
    assert result_of(tmp_path / "run") == result_of(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=str)
@pytest.mark.parametrize(
    ("words", "replicas"),
    [
        (("fsdp-tp", "--say", "mesh"), [(0, 1), (2, 3)]),
        (("fsdp-tp", "--say", "all-of-mesh"), [(0, 1), (2, 3)]),
        (("fsdp-tp", "--sampler", "replicas"), [(0, 1), (2, 3)]),
        (("ddp-part", "--say", "mesh"), [(0, 1), (2, 3)]),
        (("tp", "--tp", "4"), [(0, 1, 2, 3)]),
        (("by-hand", "--say", "numbers"), [(0, 1), (2, 3)]),
        (("by-hand", "--sampler", "replicas"), [(0, 1), (2, 3)]),
        (("by-hand",), [(0,), (1,), (2,), (3,)]),
    ],
    ids=lambda value: "-".join(value).replace("---", "-") if isinstance(value, tuple) else "",
)
def test_every_way_to_say_it_resumes_exactly(tmp_path, words, replicas, signum):
    parts = [strike(tmp_path / "run", signum, *words), run(tmp_path / "run", *words)]
    check_replicas(parts, replicas)
    run(tmp_path / "undisturbed", *words)
    assert result_of(tmp_path / "run") == result_of(tmp_path / "undisturbed")


@pytest.mark.slow
def test_the_rest_of_an_epoch_is_dealt_to_another_number_of_replicas(tmp_path):
    parts = [
        strike(tmp_path / "run", signal.SIGTERM, "fsdp-tp"),
        run(tmp_path / "run", "fsdp-tp", world_size=2),
    ]
    first = {key: indices for key, indices in of_rank(parts[:1], 0).items() if key[0] == 0}
    other = {key: indices for key, indices in of_rank(parts[:1], 2).items() if key[0] == 0}
    rest = {key: indices for key, indices in of_rank(parts[1:], 0).items() if key[0] == 0}
    assert of_rank(parts[1:], 0) == of_rank(parts[1:], 1)
    used = [index for found in (first, other, rest) for indices in found.values() for index in indices]
    assert sorted(used) == list(range(SAMPLES))


@pytest.mark.parametrize(
    "words",
    [
        ("fsdp-tp", "--sampler", "world"),
        pytest.param(("fsdp-tp", "--say", "world"), marks=pytest.mark.slow),
        pytest.param(("tp", "--tp", "4", "--sampler", "world"), marks=pytest.mark.slow),
        pytest.param(("tp", "--tp", "4", "--say", "world"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_a_loader_dealt_over_the_whole_world_is_refused_with_what_to_write(tmp_path, words):
    output = refused(tmp_path / "run", *words)
    assert "would get other batches" in output
    assert 'mesh["dp"]' in output
    assert "used 1" not in output or "--say" in words  # before any rank has trained, if one knows it alone


def test_a_replica_over_a_part_of_the_ranks_needs_to_be_told_who_gets_which_batches(tmp_path):
    output = refused(tmp_path / "run", "ddp-part")
    assert "which of the 4 ranks get the same batches is not known" in output
    assert "averaged over ranks [0, 2] only" in output
    assert 'session.batches(loader, mesh=mesh["dp"])' in output
    assert "used 1" not in output
