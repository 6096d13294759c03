"""A target is met, or missed, by what was measured; and what is measured is what the names say."""

import argparse

import pytest

from bench import goodput
from bench.standby import equal_kills
from bench.targets import Target, print_verdicts


@pytest.mark.parametrize(
    ("measured", "sense", "is_met"),
    [
        (0.3, "at most", True),
        (0.31, "at most", False),
        (0.3, "at least", True),
        (0.29, "at least", False),
        (0.3, "more than", False),
        (0.31, "more than", True),
        (None, "at most", False),
        (float("nan"), "at most", False),
    ],
)
def test_a_target_is_met_on_its_own_side_only(measured, sense, is_met, capsys):
    assert print_verdicts([Target("x, s", measured, 0.3, sense)]) == (0 if is_met else 1)
    assert capsys.readouterr().out.startswith("PASS x, s: " if is_met else "MISS x, s: ")


def test_kills_are_bit_equal_only_if_every_step_of_the_attempt_after_it_is():
    alone = {step: {"loss": f"0x{step}", "digest": f"d{step}"} for step in range(1, 6)}

    def row(pid, step, **changes):
        return {"pid": pid, "step": step, "loss": f"0x{step}"} | changes

    ledger = [
        *(row(1, 1, digest="d1"), row(1, 2)),
        *(row(2, 2, digest="d2"), row(2, 3)),  # equal
        *(row(3, 3, digest="another state"), row(3, 4)),
        *(row(4, 4, digest="d4"), row(4, 5, loss="0x4")),
    ]
    assert equal_kills(ledger, alone) == [True, False, False]


def test_there_is_time_for_a_quarter_more_kills_than_are_asked_for():
    args = argparse.Namespace(seed=1, mtbf=10.0, kills=8, batches=100, step_ms=40.0)
    times = goodput.kill_times(args)
    last_s = [next(times) for _ in range(10)][-1]
    assert goodput.epochs_for(args) * args.batches * args.step_ms / 1000 > last_s


def test_a_short_undisturbed_loop_tells_the_rate_of_a_long_one():
    moments = [2.0 + 0.5 * (number + 1) for number in range(10)]  # it starts for 2 s, and makes 10 steps
    plain = {"moments": moments, "steps_per_s": 10 / 7.0}
    assert goodput.extrapolated(plain, 100) == pytest.approx(100 / 52.0)


def test_a_peer_that_is_as_fast_is_a_miss():
    args = argparse.Namespace(mtbf=10.0)
    found = goodput.targets(args, {goodput.BEST: 0.9, "trainerd": 0.95, "ignite": 0.9, "torch.save": 0.8})
    assert [(each.wanted, each.is_met) for each in found] == [(0.88, True), (0.9, False), (0.8, True)]
