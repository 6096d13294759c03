"""What a rank is told, and which program it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainerd.contract.records import LaunchRecord
from trainerd.errors import UserError
from trainerd.shim.spawn import find_program, rank_environment, rank_start


def launch(nproc=1, **env):
    return LaunchRecord("job", 1, ("true",), "/", env, nproc, 1.0, ("log",) * nproc)


def test_a_rank_is_told_who_it_is_whatever_the_spec_says():
    environ = rank_environment(launch(2, RANK="7", A="1"), {}, rank=1, mark="mark", master_port=1234)
    assert environ == {
        "A": "1",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "ROLE_NAME": "default",
        "ROLE_RANK": "1",
        "ROLE_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "TORCHELASTIC_RUN_ID": "job",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1234",
        "TRAINERD_ATTEMPT_ID": "mark",
    }


def test_a_program_that_is_no_group_is_told_nothing_of_ranks():
    """Many scripts take RANK in the environment for a rendezvous, and then miss MASTER_ADDR."""
    alone = replace(launch(), is_group=False)
    assert rank_environment(alone, {}, rank=0, mark="m", master_port=None) == {"TRAINERD_ATTEMPT_ID": "m"}


def test_a_rendezvous_that_the_user_chose_is_left_as_it_is():
    environ = rank_environment(launch(2, MASTER_PORT="5"), {}, rank=0, mark="m", master_port=1234)
    assert environ["MASTER_PORT"] == "5"


def test_secrets_win_over_the_spec_and_not_over_trainerd():
    environ = rank_environment(
        launch(A="spec", TRAINERD_JOB="job"),
        {"A": "secret", "TRAINERD_JOB": "forged", "TRAINERD_ATTEMPT_ID": "forged", "RANK": "9"},
        rank=0,
        mark="mark",
        master_port=None,
    )
    assert (environ["A"], environ["TRAINERD_JOB"]) == ("secret", "job")
    assert (environ["TRAINERD_ATTEMPT_ID"], environ["RANK"]) == ("mark", "0")


def test_a_program_is_looked_for_in_order_and_only_if_executable(tmp_path):
    for folder, mode in (("a", 0o644), ("b", 0o755), ("c", 0o755)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text("")
        (tmp_path / folder / "tool").chmod(mode)
    search_path = ":".join(str(tmp_path / folder) for folder in "abc")
    assert find_program("tool", search_path) == str(tmp_path / "b" / "tool")
    assert find_program("./tool", search_path) == "./tool"
    with pytest.raises(UserError, match="'missing' was not found"):
        find_program("missing", search_path)


def test_a_folder_for_compiled_code_from_the_env_file_is_kept(tmp_path):
    record = replace(launch(TRAINERD_COMPILED_DIR=str(tmp_path)), is_group=False)
    mine = {"TORCHINDUCTOR_CACHE_DIR": "/mine"}
    start = rank_start(record, mine, frozenset(), rank=0, mark="m", master_port=None)
    assert start.environ == {"TRAINERD_ATTEMPT_ID": "m", "TORCHINDUCTOR_CACHE_DIR": "/mine"}
    of_run = rank_start(record, {}, frozenset(), rank=0, mark="m", master_port=None).environ
    assert of_run["TORCHINDUCTOR_CACHE_DIR"] == f"{of_run['TRAINERD_COMPILED_DIR']}/inductor"
    assert of_run["TRAINERD_COMPILED_DIR"].startswith(f"{tmp_path}/")
