"""What the supervisor says in the environment is what the training side hears."""

from pathlib import Path

import pytest

from trainerd.contract import environment as env
from trainerd.contract.policy import Cadence, CheckpointPolicy, KeepBest, KeepEvery, RetentionPolicy
from trainerd.errors import UserError

POLICY = CheckpointPolicy(
    Cadence(steps=10, seconds=None, epochs=2, at_start=True),
    RetentionPolicy(None, (KeepBest("accuracy", n=2), KeepBest("loss", mode="min")), KeepEvery(epochs=5)),
)


def test_what_is_written_is_read():
    said = env.TrainingEnvironment(
        run_dir=Path("/runs/a"),
        attempt_dir=Path("/runs/a/attempts/000003"),
        job="a",
        attempt=3,
        spec_digest="abc",
        grace_s=12.5,
        seed=7,
        checkpoint=POLICY,
    )
    assert env.from_environ(env.to_environ(said)) == said


def test_without_a_supervisor_everything_has_a_default():
    assert env.from_environ({}) == env.TrainingEnvironment()


def test_what_the_spec_leaves_open_stays_the_scripts():
    said = env.TrainingEnvironment(checkpoint=POLICY, checkpoint_variables=(env.KEEP_LAST,))
    script = CheckpointPolicy(Cadence(steps=3), RetentionPolicy(1, (KeepBest("f1"),)))
    heard = env.from_environ(env.to_environ(said), script=script).checkpoint
    assert heard == CheckpointPolicy(Cadence(steps=3), RetentionPolicy(None, (KeepBest("f1"),)))


def test_ranks_come_from_the_usual_variables():
    heard = env.from_environ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"})
    assert (heard.rank, heard.local_rank, heard.world_size) == (3, 1, 4)


@pytest.mark.parametrize("name", [env.ATTEMPT, env.GRACE_S, env.EVERY_STEPS, env.KEEP_BEST, "RANK"])
def test_a_variable_that_cannot_be_read_is_named(name):
    with pytest.raises(UserError, match=name):
        env.from_environ({name: "[nonsense"})


def test_every_variable_is_listed():
    assert {env.RUN_DIR, env.ATTEMPT_ID, env.KEEP_BEST} <= set(env.VARIABLES)
    assert all(name.startswith("TRAINERD_") for name in env.VARIABLES)
