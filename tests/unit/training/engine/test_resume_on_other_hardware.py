"""A checkpoint of a machine with CUDA devices is resumed where there are none, or others: never refused, and
suspect.

No device is needed: the checkpoints are made with the states and settings that one would have.
"""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from tests.support.fake_generators import FakeGenerators
from tests.support.in_process import attempt
from trainerd.contract.resume_record import read_resume
from trainerd.training.distributed.rank_store import Ranks
from trainerd.training.engine import run_state
from trainerd.training.engine.run_resume import RunResume
from trainerd.training.engine.suspicions import Suspicions
from trainerd.training.state import program_fingerprint
from trainerd.training.state.rng import capture_rng, restore_rng

pytestmark = pytest.mark.torch


class Hardware:
    """Makes a session see other devices than there are."""

    def __init__(self, count, kind):
        self.devices = FakeGenerators(count)
        self.facts = {"device": kind, "device_type": kind, "device_count": count, "threads": 1}

    def __enter__(self):
        def capture():
            return capture_rng(self.devices)

        def restore(state, **options):
            return restore_rng(state, self.devices, **options)

        self.patches = [
            mock.patch.object(run_state, "capture_rng", capture),
            mock.patch.object(run_state, "restore_rng", restore),
            mock.patch.object(program_fingerprint, "machine_facts", return_value=self.facts),
        ]
        for patch in self.patches:
            patch.__enter__()
        return self

    def __exit__(self, *error):
        for patch in reversed(self.patches):
            patch.__exit__(*error)


def cuda(count):
    return Hardware(count, "cuda")


def cpu():
    return Hardware(0, "cpu")


def noisy(devices):
    """Return a run whose loss depends on the generator of every device."""

    def loop(session, tick):
        model = torch.nn.Linear(2, 1)
        session.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in session.epochs(1):
            for number in session.batches(range(8)):
                tick()
                session.log(loss=float(number), noise=sum(devices.draw(), 0.0))

    return loop


def resumed(run, first, second, loop_of=noisy):
    with first:
        assert not attempt(run, loop_of(first.devices), crash_at=6, steps=3)
    with second:
        assert attempt(run, loop_of(second.devices), steps=3)
    return read_resume(run / "resume.json")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (cuda(1), cpu(), "none restored"),
        (cuda(2), cuda(1), "1 restored"),
        (cuda(1), cuda(2), "1 restored, 1 seeded"),
        (cpu(), cuda(1), "1 seeded"),
    ],
    ids=["no device", "fewer", "more", "from the CPU"],
)
def test_a_resume_on_other_devices_is_suspect_with_the_reason(tmp_path, first, second, said):
    record = resumed(tmp_path / "run", first, second, lambda _: noisy(cpu().devices))
    assert record.verdict == "suspect"
    reasons = {each.kind: each for each in record.reasons}
    assert said in reasons["device-generators"].detail
    changed = "\n".join(record.changes)
    assert "machine.device_count" in changed
    assert ("machine.device_type" in changed) == (first.facts["device"] != second.facts["device"])


def test_a_resume_on_the_same_devices_is_exact_and_draws_what_they_would_have_drawn(tmp_path):
    record = resumed(tmp_path / "run", cuda(2), cuda(2))
    assert (record.differing, record.changes) == (0, ())
    assert "device-generators" not in {each.kind for each in record.reasons}


def with_scaler(*, is_enabled):
    def loop(session, tick):
        model = torch.nn.Linear(2, 1)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=is_enabled)
        optimizer = torch.optim.Adam(model.parameters())
        session.track(model=model, optimizer=optimizer, scaler=scaler)
        for _ in session.epochs(1):
            for _ in session.batches(range(8)):
                tick()
                optimizer.zero_grad()
                scaler.scale(model(torch.ones(1, 2)).sum()).backward()
                scaler.step(optimizer)
                scaler.update()
        loop.scale = scaler.get_scale() if is_enabled else None

    return loop


@pytest.mark.parametrize("first", [True, False])
def test_a_scaler_that_is_disabled_on_one_side_is_no_reason_to_refuse(tmp_path, first):
    run = tmp_path / "run"
    assert not attempt(run, with_scaler(is_enabled=first), crash_at=6, steps=3)
    assert attempt(run, with_scaler(is_enabled=not first), steps=3)
    record = read_resume(run / "resume.json")
    assert record.verdict == "suspect"
    (reason,) = [each for each in record.reasons if each.kind == "scaler-not-restored"]
    assert ("not restored" if first else "first scale") in reason.detail
    assert "option-kept" not in {each.kind for each in record.reasons}  # nothing of it was restored


def test_a_scaler_that_is_enabled_on_both_sides_is_restored(tmp_path):
    run = tmp_path / "run"
    assert not attempt(run, with_scaler(is_enabled=True), crash_at=6, steps=3)
    assert attempt(run, with_scaler(is_enabled=True), steps=3)
    kinds = {each.kind for each in read_resume(run / "resume.json").reasons}
    assert kinds.isdisjoint({"scaler-not-restored", "not-restored"})


def test_an_optimizer_that_was_capturable_steps_on_the_cpu(tmp_path):
    """torch asserts that the parameters are on a device."""

    def loop_of(is_on_device):
        def loop(session, tick):
            model = torch.nn.Linear(2, 1)
            optimizer = torch.optim.Adam(model.parameters())
            session.track(model=model, optimizer=optimizer)
            for _ in session.epochs(1):
                for _ in session.batches(range(8)):
                    tick()
                    optimizer.zero_grad()
                    model(torch.ones(1, 2)).sum().backward()
                    optimizer.step()
                    if is_on_device and session.step == 2:
                        optimizer.param_groups[0]["capturable"] = True  # saved, and never stepped with
            loop.capturable = optimizer.param_groups[0]["capturable"]

        return loop

    run = tmp_path / "run"
    assert not attempt(run, loop_of(is_on_device=True), crash_at=4, steps=3)
    second = loop_of(is_on_device=False)
    assert attempt(run, second, steps=3)
    assert second.capturable is False
    record = read_resume(run / "resume.json")
    assert "not-restored" not in {each.kind for each in record.reasons}


def test_a_tracked_generator_of_a_device_is_seeded_on_the_cpu_and_that_is_said(tmp_path):
    state = torch.tensor([*(7).to_bytes(8, "little"), *(400).to_bytes(8, "little")], dtype=torch.uint8)

    class OnDevice:
        def state_dict(self):
            return {"kind": "torch", "state": state, "device": "cuda"}

    def loop_of(tracked):
        def loop(session, tick):
            session.track(noise=tracked)
            for _ in session.epochs(1):
                for number in session.batches(range(8)):
                    tick()
                    session.log(loss=float(number))

        return loop

    run = tmp_path / "run"
    OnDevice.load_state_dict = lambda self, state: None
    assert not attempt(run, loop_of(OnDevice()), crash_at=6, steps=3)
    assert attempt(run, loop_of(torch.Generator()), steps=3)
    found = [each for each in read_resume(run / "resume.json").reasons if each.kind == "device-generators"]
    assert [each.where for each in found] == ["a generator of device cuda is one of cpu here"]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_another_rank_could_not_put_back_is_said_and_kept_by_rank_0_alone(rank):
    store, other = torch.distributed.HashStore(), 1 - rank
    noted = ["CUDA generators: none restored", "something else"]
    Ranks(store, rank=other, world_size=2).put(f"resume/taken/{other}", [None, noted])
    said = []
    suspicions = Suspicions(said.append)
    resume = RunResume(
        SimpleNamespace(environment=SimpleNamespace(rank=rank, world_size=2)),
        SimpleNamespace(restore=lambda tree, source: None, seeded_generators=None),
        SimpleNamespace(is_committer=rank == 0),
        history=None,
        ranks=Ranks(store, rank=rank, world_size=2),
        evidence=None,
        suspicions=suspicions,
    )
    resume._put_back(None, SimpleNamespace(name="step-1", manifest=SimpleNamespace(world_size=2)))
    expected = [("device-generators", "rank 1", noted[0])] if rank == 0 else []
    assert [(each.kind, each.where, each.detail) for each in suspicions.reasons] == expected
    assert len(said) == len(expected)
