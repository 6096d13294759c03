"""Objects of installed packages that go on beside what is tracked are reasons not to be exact."""

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from tests.support.packages import install  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.torch


class Agent:
    """Holds a model, and trains it at a rate that follows from what it has done, as SB3's algorithms do."""

    def __init__(self):
        self.policy = torch.nn.Linear(3, 3)
        self.optimizer = torch.optim.SGD(self.policy.parameters(), lr=0.1)
        self.done = 0

    def learn(self):
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + self.done)
        self.done += 1
        self.optimizer.zero_grad()
        self.policy(torch.ones(1, 3)).square().mean().backward()
        self.optimizer.step()


class Kept:
    """Saves what goes on in an agent."""

    def __init__(self, agent):
        self.agent = agent

    def state_dict(self):
        return {"done": self.agent.done}

    def load_state_dict(self, state):
        self.agent.done = state["done"]


class World:
    """A simulator, which its steps bring into another state."""

    action_space = (0, 1)

    def __init__(self):
        self.place = 0

    def reset(self):
        self.place = 0

    def step(self, action):
        self.place += action
        return self.place


class Reader(World):
    """Has a place that is read and set, and is no simulator: there is nothing to reset."""

    reset = None


def reasons(folder, agent, world=None, **tracked):
    with trainerd.session(folder, seed=0, every={"seconds": None}) as session:
        session.track(policy=agent.policy, optimizer=agent.optimizer, **tracked)
        for _ in session.steps(3):
            agent.learn()
            if world is not None:
                world.step(1)
        return [each for each in session._run.suspicions.reasons if each.kind == "untracked-object"]


def test_one_that_holds_a_tracked_model_is_said_with_a_remedy_that_helps(tmp_path, monkeypatch):
    agent = install(monkeypatch, Agent)()
    (reason,) = reasons(tmp_path / "a", agent)
    assert "training changes agent.done, and agent is not tracked" in reason.detail
    assert "write a class that keeps agent" in reason.hint
    assert not reasons(tmp_path / "b", agent, kept=Kept(agent))


def test_one_of_a_framework_with_an_integration_is_fine(tmp_path, monkeypatch):
    assert not reasons(tmp_path, install(monkeypatch, Agent, "transformers")())


@pytest.mark.parametrize(("kind", "named"), [(World, 1), (Reader, 0)])
def test_a_simulator_is_said(tmp_path, monkeypatch, kind, named):
    agent, world = Agent(), install(monkeypatch, kind, "worlds")()
    found = reasons(tmp_path, agent, world, kept=Kept(agent))
    assert ["training changes world.place" in each.detail for each in found] == [True] * named
