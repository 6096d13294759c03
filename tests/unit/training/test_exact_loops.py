"""Every shape of training loop comes out equal to the last bit, however often it crashed and went on."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import swa_utils
from torch.utils.data import DataLoader, Dataset

from tests.support.in_process import disturbed, undisturbed
from tests.support.training_fixtures import one_thread  # noqa: F401 - a fixture
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume, summary

pytestmark = pytest.mark.torch

CRASHES = (5, 9, 2)
"""At the fifth place of the first attempt, the ninth of the second, the second of the third."""


class Points(Dataset):
    """Points with noise from every generator."""

    def __len__(self):
        return 22

    def __getitem__(self, index):
        noise = torch.rand(6) + random.random() + float(np.random.normal())
        return torch.arange(6.0) * index / 22 + 0.1 * noise, torch.tensor([index % 3 / 2.0])


def loader(size=4, **options):
    return DataLoader(Points(), batch_size=size, shuffle=True, **options)


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def mean_square(model, batch):
    points, targets = batch
    return functional.mse_loss(model(points), targets)


def accumulation_and_clipping(session, tick):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=20)
    session.track(model=model, optimizer=optimizer, schedule=schedule)
    data = loader()
    for _ in session.epochs(3):
        for batch in session.batches(data, accumulate=4):
            loss = mean_square(model, batch)
            (loss / 4).backward()
            session.log(loss=loss)
            tick()
            if session.ends_step:
                norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                session.log(norm=norm)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            tick()


def adversarial(session, tick):
    generator, critic = nn.Linear(3, 6), nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 1))
    makes = torch.optim.Adam(generator.parameters(), lr=0.02, betas=(0.5, 0.9))
    judges = torch.optim.RMSprop(critic.parameters(), lr=0.01, momentum=0.5)
    session.track(generator=generator, critic=critic, makes=makes, judges=judges)
    for _ in session.epochs(3):
        for points, _ in session.batches(loader()):
            judges.zero_grad()
            fake = generator(torch.randn(len(points), 3))
            loss = (
                functional.softplus(critic(fake.detach())).mean()
                + functional.softplus(-critic(points)).mean()
            )
            loss.backward()
            judges.step()
            tick()
            session.log(critic_loss=loss)
            if session.batch % 2 == 0:
                makes.zero_grad()
                loss = functional.softplus(-critic(generator(torch.randn(len(points), 3)))).mean()
                loss.backward()
                makes.step()
                session.log(generator_loss=loss)
            tick()


def alternating_schedules(session, tick):
    """Two loops an epoch over data of their own, each with a part of the network; every second epoch skips
    one."""
    body, head = network()[:4], nn.Linear(8, 1)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.05, momentum=0.9) for part in (body, head)]
    session.track(body=body, head=head, first=optimizers[0], second=optimizers[1])
    count = session.value("count", 0)
    data = [loader(4), loader(5, drop_last=True)]
    for epoch in session.epochs(4):
        for part in (0, 1) if epoch % 2 == 0 else (1,):
            count.value += 1
            for batch in session.batches(data[part]):
                loss = mean_square(nn.Sequential(body, head), batch)
                optimizers[part].zero_grad()
                loss.backward()
                optimizers[part].step()
                session.log(loss=loss, part=part, count=count.value)
                tick()
            optimizers[part].param_groups[0]["lr"] *= 0.9
            tick()


def scaled_gradients(session, tick):
    """A scale at which gradients overflow at first: steps are skipped, and the scale falls and grows."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=3)
    session.track(model=model, optimizer=optimizer, scaler=scaler)
    for _ in session.epochs(3):
        for batch in session.batches(loader()):
            optimizer.zero_grad()
            loss = mean_square(model, batch)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            session.log(loss=loss, scale=scaler.get_scale())
            tick()


def half_precision(session, tick):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(3):
        for batch in session.batches(loader()):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = mean_square(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            tick()


class HandMade:
    """A moving average as people write it themselves."""

    def __init__(self, model):
        self.shadow = copy.deepcopy(model.state_dict())
        self.updates = 0

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.shadow[name].lerp_(value, min(0.1, 1 / self.updates))

    def state_dict(self):
        return {"shadow": self.shadow, "updates": self.updates}

    def load_state_dict(self, state):
        self.shadow, self.updates = state["shadow"], state["updates"]


def moving_averages(session, tick):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, nesterov=True, momentum=0.9)
    average = swa_utils.AveragedModel(
        model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    own = HandMade(model)
    session.track(model=model, optimizer=optimizer, average=average, own=own)
    for _ in session.epochs(3):
        model.train()
        for batch in session.batches(loader()):
            loss = mean_square(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tick()
            average.update_parameters(model)
            own.update(model)
            session.log(loss=loss)
            tick()
        average.eval()
        with torch.no_grad():
            session.report(
                error=float(mean_square(average, next(iter(session.batches(loader(22), train=False)))))
            )


def plateau_and_early_stopping(session, tick):
    """Validation feeds the scheduler and decides when it is enough; both are state."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    best, bad = session.value("best", float("inf")), session.value("bad", 0)
    session.track(model=model, optimizer=optimizer, schedule=schedule)
    for _ in session.epochs(30):
        model.train()
        for batch in session.batches(loader()):
            loss = mean_square(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss, lr=optimizer.param_groups[0]["lr"])
            tick()
        model.eval()
        error, count = 0.0, 0
        with torch.no_grad():
            for batch in session.batches(loader(8), train=False):
                error, count = error + float(mean_square(model, batch)), count + 1
                tick()
        schedule.step(error / count)
        best.value, bad.value = (error, 0) if error < best.value else (best.value, bad.value + 1)
        session.report(error=error / count, bad=bad.value)
        tick()
        if bad.value >= 3:
            break


def compiled(session, tick):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    session.track(model=model, optimizer=optimizer)
    fast = torch.compile(model)
    for _ in session.epochs(3):
        for batch in session.batches(loader(11)):
            loss = mean_square(fast, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            tick()
            tick()
            tick()


def compiled_and_tracked(session, tick):
    """The wrapper itself is tracked; what is saved is the model within."""
    model = torch.compile(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(3):
        for batch in session.batches(loader(11)):
            loss = mean_square(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            tick()
            tick()
            tick()


STEPS_BETWEEN_SAVES = {accumulation_and_clipping: 1}  # which has two steps an epoch

LOOPS = [
    accumulation_and_clipping,
    adversarial,
    alternating_schedules,
    scaled_gradients,
    half_precision,
    moving_averages,
    plateau_and_early_stopping,
    pytest.param(compiled, marks=pytest.mark.slow),
    pytest.param(compiled_and_tracked, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_loop_that_crashed_thrice_equals_one_that_did_not(tmp_path, loop):
    steps = STEPS_BETWEEN_SAVES.get(loop, 3)
    expected = undisturbed(tmp_path / "left-alone", loop, steps=steps)
    assert disturbed(tmp_path / "struck", loop, CRASHES, steps=steps) == expected
    resume = read_resume(RunPaths(tmp_path / "struck").resume)
    assert resume.resumes >= len(CRASHES) - 1  # the first attempt may have ended before its first step
    assert resume.checkpoint is not None
    assert (resume.differing, resume.differing_before) == (0, 0), summary(resume)
    assert resume.is_read_back, summary(resume)
    assert resume.verdict == ("exact" if resume.lost else "unchecked"), summary(resume)


def test_ten_crashes_in_ten_attempts_change_nothing(tmp_path):
    expected = undisturbed(tmp_path / "left-alone", moving_averages)
    crashes = (7, 9, 3, 8, 7, 2, 5, 9, 6, 4)
    assert disturbed(tmp_path / "struck", moving_averages, crashes) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_a_number_of_workers_that_changes_between_attempts_changes_nothing(tmp_path, workers):
    numbers = iter((workers, 0, 4, workers, 0, 0))

    def loop(session, tick):
        data, model = loader(num_workers=next(numbers)), network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(2):
            for batch in session.batches(data):
                loss = mean_square(model, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss, noise=torch.rand(()))
                tick()

    found = disturbed(tmp_path / "struck", loop, (5, 3, 4, 2))
    assert undisturbed(tmp_path / "left-alone", loop) == found
