"""Failpoints: inert unless named, exact when named."""

import errno

import pytest

from trainerd.contract import failpoints
from trainerd.errors import UserError


@pytest.fixture
def point():
    made = failpoints.declare("test.point", "nothing")
    yield made
    failpoints.arm("")
    del failpoints.REGISTRY["test.point"]


def test_a_point_that_is_not_named_does_nothing(point):
    point.hit()


def test_a_point_strikes_at_the_hit_that_was_asked_for(point):
    failpoints.arm("test.point=EIO@3")
    point.hit()
    point.hit()
    with pytest.raises(OSError) as raised:
        point.hit()
    assert raised.value.errno == errno.EIO
    point.hit()


def test_hits_count_from_when_a_point_is_armed(point):
    failpoints.arm("test.point=EIO@2")
    point.hit()
    failpoints.arm("test.point=EIO@2")
    point.hit()
    with pytest.raises(OSError):
        point.hit()


@pytest.mark.parametrize("text", ["nonsense", "a=EWHAT", "a=kill@x", "a"])
def test_what_cannot_be_read_is_shown(text):
    with pytest.raises(UserError, match="TRAINERD_FAILPOINTS"):
        failpoints.arm(text)
