"""Retention: what stays, with every reason. Plans are compared as text."""

from __future__ import annotations

import math
import random

import pytest

from trainerd.checkpoint.retention import Candidate, ranked, retention_plan
from trainerd.contract.policy import KeepBest, KeepEvery, RetentionPolicy


def made(step, *, ordinal=0, epoch=0, at_s=0.0, **scores):
    name = f"s{step}" + (f".{ordinal}" if ordinal else "")
    return Candidate(name, step, ordinal, epoch, at_s, scores)


def plan(candidates, *, newest_verified="last", **options):
    policy = RetentionPolicy(**{key: options.pop(key) for key in list(options) if key.startswith("keep_")})
    if newest_verified == "last":
        newest_verified = max(candidates, key=lambda one: one.order).name if candidates else None
    return retention_plan(candidates, policy, newest_verified=newest_verified, **options)


def text(**options):
    return "\n" + str(plan(**options)) + "\n"


def kept(candidates, **options):
    return [decision.name for decision in plan(candidates, **options).keep]


TEN = [made(step, epoch=step // 3, at_s=step * 60.0) for step in range(1, 11)]


def test_the_newest_n_stay():
    assert (
        text(candidates=TEN[:5], keep_last=3)
        == """
prune  s1  no rule keeps it
prune  s2  no rule keeps it
keep   s3  newest 3 of 3
keep   s4  newest 2 of 3
keep   s5  newest 1 of 3; newest verified
"""
    )


def at_end(step, *, ordinal=0):
    return Candidate(f"s{step}", step, ordinal, is_saved_at_end=True)


def test_what_crashes_save_takes_no_place_of_what_was_saved_by_plan():
    """Three crashes: going back finds 25 and 50, and one of the three is kept to go on from."""
    assert (
        text(candidates=[made(25), made(50), at_end(51), at_end(52), at_end(53)], keep_last=3)
        == """
keep   s25  newest 3 of 3
keep   s50  newest 2 of 3
prune  s51  no rule keeps it
prune  s52  no rule keeps it
keep   s53  newest 1 of 3; newest, saved as an attempt ended; newest verified
"""
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_crashes_keep_one_checkpoint_more_at_most(count):
    drawn = random.Random(count)
    for _ in range(200):
        steps = range(1, drawn.randint(2, 12))
        candidates = [made(step) if drawn.random() < 0.5 else at_end(step) for step in steps]
        planned = [each.name for each in candidates if not each.is_saved_at_end]
        stay = kept(candidates, keep_last=count)
        assert set(planned[-count:]) <= set(stay)
        assert candidates[-1].name in stay
        assert min(count, len(candidates)) <= len(stay) <= count + 1
        assert len(stay) <= count or candidates[-1].is_saved_at_end


def test_what_crashes_saved_goes_when_there_are_newer_ones():
    assert kept([at_end(1), made(2), at_end(3), made(4), made(5)], keep_last=3) == ["s2", "s4", "s5"]


def test_where_all_were_saved_at_the_end_of_an_attempt_the_newest_n_stay():
    assert kept([at_end(step) for step in range(1, 9)], keep_last=3) == ["s6", "s7", "s8"]


def test_all_rules_together_each_with_its_reason():
    candidates = [
        made(100, epoch=1, accuracy=0.5, loss=2.0),
        made(200, epoch=2, accuracy=0.9, loss=1.5),
        made(300, epoch=3, accuracy=0.9, loss=math.nan),
        made(400, epoch=4, accuracy=math.inf, loss=0.25),
        made(500, epoch=5, accuracy=0.7, loss=-math.inf),
        made(600, epoch=6, accuracy=0.6),
        made(700, epoch=6),
        made(800, epoch=7),
    ]
    assert (
        text(
            candidates=candidates,
            keep_last=1,
            keep_best=(KeepBest("accuracy", n=2), KeepBest("loss", mode="min", on_tie="latest")),
            keep_every=KeepEvery(epochs=3),
            protected={"s100": "resumed from"},
            pinned={"s600": "the one in the paper", "s999": "gone"},
            in_use=["s700"],
            newest_verified="s700",
        )
        == """
keep   s100  resumed from
keep   s200  best 1 of 2 by accuracy (max): 0.9
keep   s300  best 2 of 2 by accuracy (max): 0.9; first of each 3 epochs
keep   s400  best 1 of 1 by loss (min): 0.25
prune  s500  no rule keeps it
keep   s600  first of each 3 epochs; pinned: the one in the paper
keep   s700  being read; newest verified
keep   s800  newest 1 of 1
"""
    )


def test_keep_last_none_keeps_all():
    assert len(kept(TEN, keep_last=None)) == len(TEN)


def test_keep_last_zero_still_keeps_the_newest_verified():
    assert kept(TEN, keep_last=0) == ["s10"]


def test_without_a_verified_checkpoint_nothing_is_pruned():
    assert kept(TEN, keep_last=1, newest_verified=None) == [one.name for one in TEN]


def test_the_newest_verified_stays_however_old_it_is():
    assert kept(TEN, keep_last=1, newest_verified="s2") == ["s2", "s10"]


@pytest.mark.parametrize("protection", ["protected", "in_use"])
def test_prune_keeps_what_is_protected(protection):
    assert kept(TEN, keep_last=1, **{protection: ["s4"]}) == ["s4", "s10"]


def test_prune_keeps_the_checkpoint_resumed_from():
    assert kept(TEN, keep_last=1, protected={"s3": "resumed from"}) == ["s3", "s10"]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_score_that_is_no_finite_number_is_never_best(wrong, mode):
    candidates = [made(1, a=wrong), made(2, a=0.5), made(3, a=wrong), made(4)]
    assert kept(candidates, keep_last=1, keep_best=(KeepBest("a", n=3, mode=mode),)) == ["s2", "s4"]


@pytest.mark.parametrize(("on_tie", "expected"), [("first", ["s1", "s2"]), ("latest", ["s4", "s3"])])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_ties_go_to_the_first_or_to_the_latest(mode, on_tie, expected):
    candidates = [made(step, a=0.5) for step in (1, 2, 3, 4)]
    rule = KeepBest("a", n=2, mode=mode, on_tie=on_tie)
    assert [one.name for one in ranked(candidates, rule)[:2]] == expected


def test_scores_are_compared_exactly():
    close = math.nextafter(0.5, 1.0)
    assert [one.name for one in ranked([made(1, a=0.5), made(2, a=close)], KeepBest("a"))] == ["s2", "s1"]


def test_the_order_in_which_they_are_given_does_not_matter():
    candidates = [made(step, ordinal=ordinal, a=step % 4) for step in range(6) for ordinal in range(2)]
    options = {"keep_last": 2, "keep_best": (KeepBest("a", n=3),), "keep_every": KeepEvery(steps=2)}
    expected = plan(candidates, **options)
    for seed in range(20):
        assert plan(random.Random(seed).sample(candidates, len(candidates)), **options) == expected


def test_of_two_at_one_step_the_later_boundary_is_newer():
    assert kept([made(3), made(4), made(4, ordinal=1)], keep_last=1) == ["s4.1"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (KeepEvery(steps=4), ["s4", "s8", "s10"]),
        (KeepEvery(steps=1), [f"s{step}" for step in range(1, 11)]),
        (KeepEvery(epochs=2), ["s6", "s10"]),
        (KeepEvery(seconds=240.0), ["s4", "s8", "s10"]),
        (KeepEvery(steps=4, seconds=180.0), ["s3", "s4", "s6", "s8", "s9", "s10"]),
    ],
    ids=str,
)
def test_the_first_of_each_stretch_stays_for_good(rule, expected):
    assert kept(TEN, keep_last=1, keep_every=rule) == expected


def test_where_no_checkpoint_lies_on_the_multiple_the_next_one_stays():
    candidates = [made(step) for step in (90, 190, 290, 390)]
    assert kept(candidates, keep_last=1, keep_every=KeepEvery(steps=100)) == ["s190", "s290", "s390"]


def test_pruning_again_changes_nothing():
    """What stays for good and what is best does not depend on what was pruned before: the disk is the
    memory."""
    generator = random.Random(7)
    rules = {
        "keep_best": (KeepBest("a", n=2),),
        "keep_every": KeepEvery(steps=50, seconds=500.0),
        "keep_last": 2,
    }
    everything, incremental = [], []
    for step in range(10, 400, 10):
        one = made(step, at_s=step * 7.0, a=generator.choice([0.1, 0.2, 0.3, math.nan]))
        everything.append(one)
        names = set(kept([*incremental, one], **rules))
        incremental = [candidate for candidate in [*incremental, one] if candidate.name in names]
    assert [one.name for one in incremental] == kept(everything, **rules)


def test_a_clock_that_jumps_loses_nothing_that_was_kept():
    candidates = [made(1, at_s=1000.0), made(2, at_s=2000.0), made(3, at_s=100.0), made(4, at_s=2100.0)]
    assert kept(candidates, keep_last=1, keep_every=KeepEvery(seconds=1000.0)) == ["s1", "s2", "s4"]


def test_no_checkpoints_make_an_empty_plan():
    assert str(plan([], keep_last=3)) == ""
