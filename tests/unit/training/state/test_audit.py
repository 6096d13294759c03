"""The first step shows what is not tracked: an error with the line to add, and nothing where all is well."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel

import trainerd
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths
from trainerd.errors import UserError
from trainerd.training.state.left_gradients import LeftGradients

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")]


def network():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))


def train(session, forward, optimizer, after=lambda: None):
    for _ in session.epochs(1):
        for batch in session.batches([torch.ones(2, 4)] * 3):
            optimizer.zero_grad()
            loss = forward(batch).pow(2).mean()
            loss.backward()
            optimizer.step()
            after()
            session.log(loss=loss)


def train_scaled(session, model, optimizer, scaler):
    for _ in session.epochs(1):
        for batch in session.batches([torch.ones(2, 4) * 100] * 3):
            optimizer.zero_grad()
            scaler.scale(model(batch).mean()).backward()
            if isinstance(optimizer, Wrapped):
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()


class Wrapped(torch.optim.Optimizer):
    """Wraps an optimizer as accelerate does: an optimizer that has not called its base class."""

    def __init__(self, optimizer, scaler=None):
        self.optimizer = optimizer
        self.scaler = scaler

    @property
    def state(self):
        return self.optimizer.state

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def defaults(self):
        return self.optimizer.defaults

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        if self.scaler is None:
            self.optimizer.step(closure)
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


class Clipped:
    """Wraps an optimizer as LARC does: no optimizer itself, with the state of the one within."""

    def __init__(self, optimizer):
        self.optim = optimizer

    def step(self):
        self.optim.step()

    def zero_grad(self):
        self.optim.zero_grad()

    def state_dict(self):
        return self.optim.state_dict()

    def load_state_dict(self, state):
        self.optim.load_state_dict(state)


class SharpnessAware(torch.optim.Optimizer):
    """Shares its groups with an optimizer within, whose momentum its own state does not have."""

    def __init__(self, parameters, **settings):
        super().__init__(parameters, settings)
        self.base_optimizer = torch.optim.SGD(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    def step(self, closure=None):
        self.base_optimizer.step()


class Noam:
    """Counts steps, and has no state to take out."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.steps = 0

    def step(self):
        self.steps += 1
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()


class EMA:
    """An average as people write it by hand."""

    def __init__(self, model):
        self.model = model
        self.shadow = {name: each.data.clone() for name, each in model.named_parameters()}

    def update(self):
        for name, each in self.model.named_parameters():
            self.shadow[name] = 0.9 * self.shadow[name] + 0.1 * each.data


class ExponentialMovingAverage:
    """An average as torch_ema keeps it: of a model it knows only the parameters, weakly."""

    def __init__(self, parameters):
        parameters = list(parameters)
        self.shadow_params = [each.clone().detach() for each in parameters]
        self._references = [weakref.ref(each) for each in parameters]

    def state_dict(self):
        return {"shadow_params": self.shadow_params}

    def load_state_dict(self, state):
        self.shadow_params = state["shadow_params"]


class ModelEmaV2(nn.Module):
    """An average as timm keeps it."""

    def __init__(self, model):
        super().__init__()
        self.module = copy.deepcopy(model)


class Owner(nn.Module):
    """A module that has its optimizer as an attribute, which is in no state dict."""

    def __init__(self):
        super().__init__()
        self.network = network()
        self.optimizer = torch.optim.Adam(self.network.parameters())

    def forward(self, batch):
        return self.network(batch)


def untracked_optimizer(session):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    session.track(model=model)
    train(session, model, optimizer)


def untracked_second_optimizer(session):
    model = network()
    optimizer = torch.optim.Adam(model[0].parameters())
    head_optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer, after=head_optimizer.step)


def optimizer_within_a_module(session):
    model = Owner()
    session.track(model=model)
    train(session, model, model.optimizer)


def optimizer_within_an_optimizer(session):
    model = network()
    optimizer = SharpnessAware(model.parameters(), lr=0.1, momentum=0.9)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer)


def an_optimizer_for_each_parameter(session):
    model = network()
    optimizers = [torch.optim.SGD([each], 0.1) for each in model.parameters()]
    session.track(model=model)

    def step():
        for each in optimizers:
            each.step()

    first = optimizers[0]
    train(session, model, first, after=step)


def untracked_scheduler(session):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer, after=scheduler.step)


def untracked_scheduler_of_schedulers(session):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    parts = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.StepLR(optimizer, 1)]
    both = lr_scheduler.SequentialLR(optimizer, parts, [2])
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer, after=both.step)


def untracked_plateau_of_an_object(session):
    class Trainer:
        pass

    self = Trainer()
    self.model = network()
    self.optimizer = torch.optim.Adam(self.model.parameters())
    self.plateau = lr_scheduler.ReduceLROnPlateau(self.optimizer)
    session.track(model=self.model, optimizer=self.optimizer)
    train(session, self.model, self.optimizer)


def untracked_counter_of_steps(session):
    model = network()
    inner = torch.optim.SGD(model.parameters(), 0.1)
    noam = Noam(inner)
    session.track(model=model, optimizer=inner)
    train(session, model, noam)


def untracked_scaler(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    scaler = torch.amp.GradScaler("cpu")
    session.track(model=model, optimizer=optimizer)
    train_scaled(session, model, optimizer, scaler)


def untracked_scaler_that_skips_the_first_step(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    session.track(model=model, optimizer=optimizer)
    train_scaled(session, model, optimizer, scaler)


def scaler_within_a_tracked_wrapper(session):
    model = network()
    scaler = torch.amp.GradScaler("cpu")
    optimizer = Wrapped(torch.optim.SGD(model.parameters(), 0.001), scaler)
    session.track(model=model, optimizer=optimizer)
    train_scaled(session, model, optimizer, scaler)


def untracked_average(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    average = AveragedModel(model)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer, after=lambda: average.update_parameters(model))


def average_by_hand(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ema = EMA(model)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer, after=ema.update)


def average_of_parameters(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ema = ExponentialMovingAverage(model.parameters())
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer)
    del ema


def average_in_a_module(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ema = ModelEmaV2(model)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer)
    del ema


def untracked_module(session):
    model, head = network(), nn.Linear(1, 1)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], 0.1)
    session.track(model=model, optimizer=optimizer)
    train(session, lambda batch: head(model(batch)), optimizer)


def untracked_parameter(session):
    model, temperature = network(), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*model.parameters(), temperature], 0.1)
    session.track(model=model, optimizer=optimizer)
    train(session, lambda batch: model(batch) * temperature, optimizer)


def accumulation_by_hand(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(1):
        for number, batch in enumerate(session.batches([torch.ones(2, 4)] * 4)):
            model(batch).mean().backward()
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()


def accumulation_by_hand_with_a_scaler(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu")
    session.track(model=model, optimizer=optimizer, scaler=scaler)
    for _ in session.epochs(1):
        for number, batch in enumerate(session.batches([torch.ones(2, 4)] * 4)):
            scaler.scale(model(batch).mean()).backward()
            if number % 2:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()


MISSING = {
    untracked_optimizer: "session.track(optimizer=optimizer)",
    untracked_second_optimizer: "session.track(head_optimizer=head_optimizer)",
    optimizer_within_a_module: "session.track(optimizer=model.optimizer)",
    optimizer_within_an_optimizer: "session.track(base_optimizer=optimizer.base_optimizer)",
    an_optimizer_for_each_parameter: "optimizers_3=optimizers[3]",
    untracked_scheduler: "session.track(scheduler=scheduler)",
    untracked_scheduler_of_schedulers: "session.track(both=both)",
    untracked_plateau_of_an_object: "session.track(plateau=self.plateau)",
    untracked_counter_of_steps: "give it state_dict() and load_state_dict()",
    untracked_scaler: "session.track(scaler=scaler)",
    untracked_scaler_that_skips_the_first_step: "session.track(scaler=scaler)",
    scaler_within_a_tracked_wrapper: "session.track(scaler=scaler)",
    untracked_average: "session.track(average=average)",
    average_by_hand: "give it state_dict() and load_state_dict()",
    average_of_parameters: "session.track(ema=ema)",
    average_in_a_module: "session.track(ema=ema)",
    untracked_module: "session.track(head=head)",
    untracked_parameter: 'session.value("temperature", temperature)',
    accumulation_by_hand: "session.batches(loader, accumulate=k)",
    accumulation_by_hand_with_a_scaler: "session.batches(loader, accumulate=k)",
}


@pytest.mark.parametrize("script", MISSING, ids=lambda script: script.__name__)
def test_what_is_not_tracked_is_an_error_at_the_first_step_that_says_what_to_add(tmp_path, script):
    with (
        pytest.raises(UserError, match="the first step shows") as raised,
        trainerd.session(tmp_path, every={"steps": 1}) as session,
    ):
        script(session)
    assert MISSING[script] in str(raised.value)
    assert f"{__file__.rpartition('/')[2]}:" in str(raised.value)
    assert session.step == 0
    assert not CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()


@pytest.mark.parametrize("script", MISSING, ids=lambda script: script.__name__)
def test_without_strictness_the_run_goes_on_and_what_was_found_is_a_suspicion(tmp_path, script):
    with trainerd.session(tmp_path, strict=False) as session:
        script(session)
    reasons = session._run.suspicions.reasons
    assert reasons
    assert all(".py:" in reason.where and reason.hint for reason in reasons)


def test_all_that_is_missing_is_told_at_once_in_one_line_to_add(tmp_path):
    def script(session):
        model = network()
        adam = torch.optim.Adam(model.parameters())
        decay = lr_scheduler.StepLR(adam, 1)
        session.track(model=model)
        train(session, model, adam, after=decay.step)

    with (
        pytest.raises(UserError, match=r"\.track\(adam=adam, decay=decay\)"),
        trainerd.session(tmp_path) as session,
    ):
        script(session)


# ---------------------------------------------------------------------- what is well


def nothing_special(session, **settings):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer)


def foreach(session):
    nothing_special(session, foreach=True)


def fused(session):
    nothing_special(session, fused=True)


def closures(session):
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters())
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(1):
        for batch in session.batches([torch.ones(2, 4)] * 3):

            def closure(batch=batch):
                optimizer.zero_grad()
                loss = model(batch).pow(2).mean()
                loss.backward()
                return loss

            optimizer.step(closure)


def schedulers_within_one(session):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    first, second = lr_scheduler.ConstantLR(optimizer), lr_scheduler.StepLR(optimizer, 1)
    session.track(model=model, optimizer=optimizer, both=lr_scheduler.ChainedScheduler([first, second]))
    train(session, model, optimizer)


def wrapped_optimizer(session):
    model = network()
    inner = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer = Wrapped(inner)
    session.track(model=model, optimizer=optimizer, scheduler=lr_scheduler.StepLR(inner, 1))
    train(session, model, optimizer)


def optimizer_within_a_wrapper(session):
    model = network()
    inner = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    session.track(model=model, optimizer=inner)
    train(session, model, Wrapped(inner))


def clipped_optimizer(session):
    model = network()
    optimizer = Clipped(torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer)


def shared_groups_and_no_state(session):
    model = network()
    optimizer = SharpnessAware(model.parameters(), lr=0.1)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer)


def two_optimizers_of_which_one_steps(session):
    one, other = network(), network()
    first, second = (torch.optim.Adam(each.parameters()) for each in (one, other))
    session.track(one=one, other=other, first=first, second=second)
    train(session, one, first)


def frozen_teacher(session):
    model = network()
    teacher = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters())
    session.track(model=model, optimizer=optimizer)
    train(session, lambda batch: model(batch) - teacher(batch), optimizer)


def disabled_scaler(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    session.track(model=model, optimizer=optimizer)
    train_scaled(session, model, optimizer, scaler)


def tracked_scaler_that_skips(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    session.track(model=model, optimizer=optimizer, scaler=scaler)
    train_scaled(session, model, optimizer, scaler)


def adversarial_examples(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(1):
        for batch in session.batches([torch.ones(2, 4)] * 3):
            delta = torch.zeros_like(batch, requires_grad=True)
            attack = torch.optim.SGD([delta], 0.1)
            decay = lr_scheduler.StepLR(attack, 1)
            (-model(batch + delta).mean()).backward()
            attack.step()
            decay.step()
            optimizer.zero_grad()
            model(batch + delta.detach()).mean().backward()
            optimizer.step()


def probe_that_lasts(session):
    model, probe = network(), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe_optimizer = torch.optim.SGD(probe.parameters(), 0.1)
    decay = lr_scheduler.StepLR(probe_optimizer, 1)
    session.track(model=model, optimizer=optimizer)

    def after():
        probe(torch.ones(1, 4)).mean().backward()
        probe_optimizer.step()
        decay.step()

    train(session, model, optimizer, after=after)


def compiled_module(session):
    model = torch.compile(network(), backend="eager")
    optimizer = torch.optim.Adam(model.parameters())
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer)


def accumulation_that_is_said(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(1):
        for batch in session.batches([torch.ones(2, 4)] * 4, accumulate=2):
            model(batch).mean().backward()
            if session.ends_step:
                optimizer.step()
                optimizer.zero_grad()


def gradients_from_before(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    model(torch.ones(1, 4)).mean().backward()
    for _ in session.epochs(1):
        for number, batch in enumerate(session.batches([torch.ones(2, 4)] * 4)):
            if number > 1:  # a memory of samples is filled first
                optimizer.zero_grad()
                model(batch).mean().backward()
                optimizer.step()


def steps_without_an_optimizer(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(1):
        for batch in session.batches([torch.ones(2, 4)] * 3):
            model(batch).mean().backward()
            with torch.no_grad():
                for each in model.parameters():
                    each.sub_(each.grad, alpha=0.1)


def tracked_averages(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    average, rate = AveragedModel(model), SWALR(optimizer, 0.1)
    ema = ModelEmaV2(model)
    session.track(model=model, optimizer=optimizer, average=average, rate=rate, ema=ema)
    train(session, model, optimizer)


def average_in_a_value(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ema = EMA(model)
    session.value("ema", ema.shadow)
    session.track(model=model, optimizer=optimizer)
    train(session, model, optimizer, after=ema.update)


def parameter_in_a_value(session):
    model, temperature = network(), nn.Parameter(torch.ones(1))
    session.value("temperature", temperature)
    optimizer = torch.optim.SGD([*model.parameters(), temperature], 0.1)
    session.track(model=model, optimizer=optimizer)
    train(session, lambda batch: model(batch) * temperature, optimizer)


def average_of_a_metric(session):
    class LossEMA:
        def __init__(self):
            self.value = 0.0
            self.recent = [torch.zeros(1)]

    smoothed = LossEMA()
    nothing_special(session)
    del smoothed


def everything_in_one_object(session):
    class Everything:
        def __init__(self):
            self.model = network()
            self.optimizer = torch.optim.Adam(self.model.parameters())
            self.scheduler = lr_scheduler.StepLR(self.optimizer, 1)

        def state_dict(self):
            return {name: each.state_dict() for name, each in vars(self).items()}

        def load_state_dict(self, state):
            for name, each in vars(self).items():
                each.load_state_dict(state[name])

    everything = Everything()
    session.track(everything=everything)
    train(session, everything.model, everything.optimizer)


def scheduler_that_is_gone(session):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    scheduler.itself = scheduler  # only a collection frees it
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    session.track(model=model, optimizer=optimizer, scheduler=scheduler)
    train(session, model, optimizer)


WELL = (
    nothing_special, foreach, fused, closures, schedulers_within_one, wrapped_optimizer,
    optimizer_within_a_wrapper, clipped_optimizer, shared_groups_and_no_state,
    two_optimizers_of_which_one_steps, frozen_teacher, disabled_scaler, tracked_scaler_that_skips,
    adversarial_examples, compiled_module, accumulation_that_is_said, gradients_from_before,
    steps_without_an_optimizer, tracked_averages, average_in_a_value, parameter_in_a_value,
    average_of_a_metric, everything_in_one_object, scheduler_that_is_gone,
)  # fmt: skip


@pytest.mark.parametrize("script", WELL, ids=lambda script: script.__name__)
def test_what_is_tracked_or_of_no_consequence_is_no_error(tmp_path, script):
    with trainerd.session(tmp_path, keep_last=1) as session:
        script(session)
    assert session._run.suspicions.reasons == ()


def test_a_probe_that_lasts_is_no_error_and_its_results_are_called_suspect(tmp_path):
    with trainerd.session(tmp_path, keep_last=1) as session:
        probe_that_lasts(session)
    (reason,) = session._run.suspicions.reasons
    assert reason.kind == "untracked-module"
    assert "training changes probe.weight" in reason.detail


def test_what_an_earlier_session_of_the_process_has_left_is_not_looked_at(tmp_path):
    former = network()
    leftovers = [torch.optim.Adam(former.parameters())]
    leftovers.append(lr_scheduler.StepLR(leftovers[0], 1))
    former(torch.ones(1, 4)).mean().backward()
    leftovers[0].step()
    with trainerd.session(tmp_path) as session:
        nothing_special(session)
    assert session._run.suspicions.reasons == ()


def test_one_hook_is_left_of_the_audit_after_the_first_step_and_none_after_the_session(tmp_path):
    from torch.optim.optimizer import _global_optimizer_post_hooks

    before, counts = dict(_global_optimizer_post_hooks), []

    def count():
        owners = [getattr(hook, "__self__", None) for hook in _global_optimizer_post_hooks.values()]
        counts.append(sum(not isinstance(owner, LeftGradients) for owner in owners))  # that one is no audit

    with trainerd.session(tmp_path) as session:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        session.track(model=model, optimizer=optimizer)
        train(session, model, optimizer, after=count)
    assert counts == [len(before) + 1] * 3
    assert dict(_global_optimizer_post_hooks) == before


def test_an_attempt_that_ends_within_its_first_step_leaves_no_hook(tmp_path):
    from torch.optim.optimizer import _global_optimizer_post_hooks

    before = dict(_global_optimizer_post_hooks)

    def script(session):
        for _ in session.batches([torch.ones(1)]):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), trainerd.session(tmp_path) as session:
        script(session)
    assert dict(_global_optimizer_post_hooks) == before


def test_a_resumed_attempt_is_audited_too(tmp_path):
    with trainerd.session(tmp_path, strict=False) as session:
        untracked_scheduler(session)
    RunPaths(tmp_path).finished.unlink()

    def script(session):
        model = network()
        optimizer = torch.optim.Adam(model.parameters())
        scheduler = lr_scheduler.StepLR(optimizer, 1)
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(2):
            for batch in session.batches([torch.ones(2, 4)] * 3):
                model(batch).mean().backward()
                optimizer.step()
                scheduler.step()

    with pytest.raises(UserError, match="is not tracked"), trainerd.session(tmp_path) as session:
        script(session)


LAZY = {
    "linear": lambda: nn.LazyLinear(1),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d()),
    "convolution": lambda: nn.LazyConv2d(2, 3),
    "a lazy buffer": lambda: nn.LazyInstanceNorm1d(affine=False, track_running_stats=True),
}


@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_module_is_refused_before_it_has_seen_a_batch(tmp_path, name):
    trained = []

    def script(session):
        session.track(model=LAZY[name]())
        trained.extend(session.batches([torch.ones(2, 4)]))

    message = "is not initialized: a lazy module"
    with pytest.raises(UserError, match=message), trainerd.session(tmp_path) as session:
        script(session)
    assert not trained


def test_a_lazy_module_that_has_seen_a_batch_is_tracked(tmp_path):
    with trainerd.session(tmp_path) as session:
        model = nn.LazyLinear(1)
        model(torch.ones(1, 4))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        session.track(model=model, optimizer=optimizer)
        train(session, model, optimizer)
    assert session.step == 3
