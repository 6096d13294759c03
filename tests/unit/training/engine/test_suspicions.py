"""A known cause of inexactness is said once and kept."""

from trainerd.contract.verdict import Reason
from trainerd.training.engine.suspicions import Suspicions

SCHEDULER = Reason(
    "untracked-scheduler", "train.py:12", "a StepLR is not tracked", "session.track(scheduler=s)"
)


def test_a_reason_is_said_once():
    said = []
    suspicions = Suspicions(said.append)
    suspicions.add(SCHEDULER)
    suspicions.add(SCHEDULER)
    assert said == [
        "trainerd: may not resume exactly: train.py:12: a StepLR is not tracked (session.track(scheduler=s))"
    ]
    assert suspicions.reasons == (SCHEDULER,)


def test_reasons_keep_the_order_in_which_they_were_found():
    other = Reason("endless-iterator", "train.py:9", "one iterator for all epochs")
    suspicions = Suspicions(lambda line: None)
    suspicions.add(SCHEDULER)
    suspicions.add(other)
    assert suspicions.reasons == (SCHEDULER, other)


def test_of_several_kinds_of_reasons_for_one_object_the_first_counts():
    found, same, shown = (
        Reason(kind, where, "v is lost")
        for kind, where in [
            ("carried-variable", "train.py:9"),
            ("carried-variable", "train.py:14"),
            ("hand-kept-state", "train.py:3"),
        ]
    )
    suspicions = Suspicions(lambda line: None)
    for reason in (found, same, shown):
        suspicions.add(reason, of="v")
    suspicions.add(shown, of="w")
    assert suspicions.reasons == (found, same, shown)
    suspicions.add(SCHEDULER, of="v")
    assert SCHEDULER not in suspicions.reasons


def test_what_a_checkpoint_told_is_not_said_again_with_its_line():
    told = Reason(SCHEDULER.kind, "train.py", SCHEDULER.detail, SCHEDULER.hint)
    another = Reason(SCHEDULER.kind, "train.py:12", "a CyclicLR is not tracked")
    suspicions = Suspicions(lambda line: None)
    suspicions.add(told)
    suspicions.add(SCHEDULER)
    suspicions.add(another)
    assert suspicions.reasons == (told, another)
    assert [suspicions.has(each) for each in (told, SCHEDULER, another)] == [True] * 3
    assert not suspicions.has(Reason("untracked-scheduler", "other.py:12", SCHEDULER.detail))
