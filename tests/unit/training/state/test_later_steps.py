"""An optimizer that steps for the first time after the first step is audited then."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR
from torch.optim.optimizer import _global_optimizer_post_hooks

import trainerd
from trainerd.errors import UserError
from trainerd.training.state.later_steps import LaterSteps

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")]


def critic_and_generator(session, *, tracked, n_critic=3, steps=5, kind=torch.optim.Adam):
    critic, generator = nn.Linear(2, 1), nn.Linear(2, 2)
    critic_steps, generator_steps = kind(critic.parameters(), 0.1), kind(generator.parameters(), 0.1)
    also = {"generator_steps": generator_steps} if tracked else {}
    session.track(critic=critic, generator=generator, critic_steps=critic_steps, **also)
    for batch in session.batches([torch.ones(2, 2)] * steps):
        critic_steps.zero_grad()
        critic(batch).mean().backward()
        critic_steps.step()
        if session.batch % n_critic == n_critic - 1:
            generator_steps.zero_grad()
            critic(generator(batch)).mean().backward()
            generator_steps.step()
        session.log(loss=0.0)
    return session.step


def test_one_that_is_not_tracked_is_an_error_at_its_first_step(tmp_path):
    with (
        pytest.raises(UserError, match=r"step 3.*shows") as caught,
        trainerd.session(tmp_path, seed=0) as session,
    ):
        critic_and_generator(session, tracked=False)
    assert "generator_steps (Adam) steps generator." in str(caught.value)
    assert "session.track(generator_steps=generator_steps)" in str(caught.value)
    assert session.step == 2


def test_one_that_is_tracked_is_fine(tmp_path):
    with trainerd.session(tmp_path, seed=0) as session:
        assert critic_and_generator(session, tracked=True) == 5


def test_without_strictness_it_is_a_suspicion_said_once(tmp_path, capsys):
    with trainerd.session(tmp_path, seed=0, strict=False) as session:
        critic_and_generator(session, tracked=False)
    assert capsys.readouterr().err.count("generator_steps (Adam) steps") == 1
    assert [each.kind for each in session._run.suspicions.reasons].count("untracked-optimizer") == 1


def test_its_scheduler_is_found_with_it(tmp_path):
    def script(session):
        model = nn.Linear(2, 1)
        one, late = (torch.optim.Adam(model.parameters(), 0.1) for _ in range(2))
        session.track(model=model, one=one, late=late)
        for batch in session.batches([torch.ones(2, 2)] * 4):
            model(batch).mean().backward()
            one.step()
            if session.batch == 1:
                schedule = ExponentialLR(late, 0.5)
                late.step()
                schedule.step()
            session.log(loss=0.0)

    with pytest.raises(UserError, match="ExponentialLR"), trainerd.session(tmp_path, seed=0) as session:
        script(session)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_that_is_made_again_is_an_error_if_it_has_state(momentum, tmp_path):
    with trainerd.session(tmp_path, seed=0) as session:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=momentum)
        session.track(model=model, optimizer=optimizer)

        def train():
            nonlocal optimizer
            for epoch in session.epochs(2):
                if epoch:
                    optimizer = torch.optim.SGD(model.parameters(), 0.1 / epoch, momentum=momentum)
                for batch in session.batches([torch.ones(2, 2)] * 2):
                    model(batch).mean().backward()
                    optimizer.step()

        if momentum:
            with pytest.raises(UserError, match=r"step 3.*shows[\s\S]*made again"):
                train()
        else:
            train()


def test_the_place_of_one_that_is_gone_is_forgotten():
    model, noted = nn.Linear(1, 1), []
    watch = LaterSteps([], lambda optimizer: noted.append(id(optimizer)))
    try:
        for _ in range(3):  # most often at one and the same address
            torch.optim.SGD(model.parameters(), 0.1).step()
            gc.collect()
        assert len(noted) == 3
    finally:
        watch.close()


def test_each_is_noted_once_and_nothing_is_left_afterwards(tmp_path):
    before = dict(_global_optimizer_post_hooks)
    model, noted = nn.Linear(1, 1), []
    known, new = (torch.optim.SGD(model.parameters(), 0.1) for _ in range(2))
    watch = LaterSteps([known], noted.append)
    for _ in range(3):
        known.step()
        new.step()
    watch.close()
    assert noted == [new]
    with trainerd.session(tmp_path, seed=0) as session:
        critic_and_generator(session, tracked=True)
    assert dict(_global_optimizer_post_hooks) == before
