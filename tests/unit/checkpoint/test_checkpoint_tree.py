"""The typed JSON tree: what goes in comes out, types and bits included, and nothing else is taken."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainerd.checkpoint.tree import DEPTH_MAX, decode_tree, encode_tree
from trainerd.errors import CorruptError, UnsupportedValueError


def no_leaf(value, path):
    return None


def no_tag(tag, payload):
    raise CorruptError(f"unknown tag {tag}")


def through_text(tree):
    plain = encode_tree(tree, leaf=no_leaf)
    text = json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
    return decode_tree(json.loads(text), leaf=no_tag)


def bits(value):
    """What two values must share to be the same: type, order and every bit."""
    kind = type(value).__name__
    if isinstance(value, float):
        return kind, struct.pack(">d", value)
    if isinstance(value, complex):
        return kind, bits(value.real), bits(value.imag)
    if isinstance(value, dict):
        return kind, [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted((bits(item) for item in value), key=repr)
    if isinstance(value, deque):
        return kind, value.maxlen, [bits(item) for item in value]
    if isinstance(value, list | tuple):
        return kind, [bits(item) for item in value]
    return kind, value


NEGATIVE_NAN = struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]

EXACT = [
    None,
    True,
    0,
    -1,
    2**63,
    -(2**200),
    0.1,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    math.nan,
    NEGATIVE_NAN,
    math.inf,
    -math.inf,
    "",
    "naïve 💥",
    "half a pair \ud83d",
    "$tensor",
    b"",
    bytes(range(256)),
    bytearray(b"ab"),
    1 - 2j,
    complex(math.nan, -0.0),
    [],
    (),
    ((1,), [2, (3,)]),
    {},
    {"a": {"b": [1, 2.0, True]}},
    {3**20000: "too long for decimal"},
    {1: "int", "1": "str", None: 0, (1, 2): [], 2.5: {}, True + 1: 1},
    {"$tag": 1},
    {"$tag": 1, "plain": 2},
    {"half \ud83d": 1},
    OrderedDict([("z", 1), ("a", 2)]),
    {3, 1, 2},
    {"a", b"a", 1.5, None, (1,)},
    frozenset({frozenset({1}), frozenset()}),
    deque([1, 2], maxlen=3),
    deque(),
    range(3, -(10**30), -2),
    slice(None, 3, None),
]


@pytest.mark.parametrize("value", EXACT, ids=range(len(EXACT)))
def test_a_value_comes_back_bit_for_bit(value):
    assert bits(through_text(value)) == bits(value)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text() | st.binary()
    | st.complex_numbers()
)  # fmt: skip
keys = st.one_of(st.text(), st.integers(), st.tuples(st.integers(), st.text()), st.binary())
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict) | st.sets(keys) | st.lists(inner).map(deque)
    ),
    max_leaves=25,
)  # fmt: skip


@given(trees)
def test_any_tree_comes_back_bit_for_bit(tree):
    assert bits(through_text(tree)) == bits(tree)


@given(st.sets(keys))
def test_equal_sets_give_equal_text_whatever_their_history(members):
    other: set = set()
    for member in reversed(list(members)):
        other.add(member)
    assert encode_tree(members, leaf=no_leaf) == encode_tree(other, leaf=no_leaf)


class Color(enum.IntEnum):
    RED = 1


class MyFloat(float):
    pass


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Color.RED,
        MyFloat(1),
        Point(1, 2),
        defaultdict(list),
        Counter("a"),
        lambda: 0,
        int,
        {1: print},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_refused(value):
    with pytest.raises(UnsupportedValueError):
        encode_tree(value, leaf=no_leaf)


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"model": {"fc.weight": print}}, "state.model.fc.weight"),
        ({"state": {0: {"exp_avg": [1, print]}}}, "state.state[0].exp_avg[1]"),
        ({"odd key!": (print,)}, 'state["odd key!"][0]'),
        ({(1, "a"): print}, "state[(1, 'a')]"),
        ([{print}], "state[0].<item>"),
        ({print: 1}, "state.<key>"),
    ],
)
def test_what_is_refused_is_named_by_its_path(tree, path):
    with pytest.raises(UnsupportedValueError) as raised:
        encode_tree(tree, leaf=no_leaf)
    assert raised.value.path == path
    assert f"cannot checkpoint {path}: a builtins.builtin_function_or_method" in str(raised.value)


def test_a_cycle_is_refused_and_says_so():
    tree = {"a": []}
    tree["a"].append(tree)
    with pytest.raises(UnsupportedValueError, match="contains itself") as raised:
        encode_tree(tree, leaf=no_leaf)
    assert raised.value.path == "state.a[0]"


def test_the_same_list_twice_is_no_cycle():
    shared = [1]
    assert through_text([shared, shared]) == [[1], [1]]


def test_a_tree_may_be_deep_but_not_endless():
    def nested(depth):
        tree = ()
        for _ in range(depth - 1):
            tree = {1: tree}
        return tree

    assert bits(through_text(nested(DEPTH_MAX))) == bits(nested(DEPTH_MAX))
    with pytest.raises(UnsupportedValueError, match=f"more than {DEPTH_MAX} levels"):
        encode_tree(nested(DEPTH_MAX + 1), leaf=no_leaf)


def test_the_leaf_is_asked_for_what_is_unknown_and_decodes_its_own_tags():
    tree = {"at": [Color.RED]}
    asked = []

    def leaf(value, path):
        asked.append(path)
        return {"$color": int(value)}

    plain = encode_tree(tree, leaf=leaf, root="model")
    assert (plain, asked) == ({"at": [{"$color": 1}]}, ["model.at[0]"])
    assert decode_tree(plain, leaf=lambda tag, payload: (tag, payload)) == {"at": [("$color", 1)]}


ILL_FORMED = [
    {"$tuple": 1},
    {"$tuple": [1], "more": 2},
    {"more": 2, "$tuple": [1]},
    {"$dict": [[1, 2, 3]]},
    {"$dict": [[[], 1]]},
    {"$dict": [[1, 2], [1, 3]]},
    {"$dict": {"a": 1}},
    {"$set": [1, 1]},
    {"$set": [[]]},
    {"$float": "1.0"},
    {"$float": "nan:3ff0000000000000"},
    {"$float": "nan:xyz"},
    {"$float": 1.0},
    {"$int": "zz"},
    {"$int": 1},
    {"$bytes": "not base64!"},
    {"$bytes": [1]},
    {"$complex": [1, 2]},
    {"$complex": [1.0]},
    {"$range": [1, 2, 0]},
    {"$range": [1.5, 2, 1]},
    {"$slice": [1]},
    {"$deque": [[1], -1]},
    {"$deque": [[1, 2, 3], 2]},
    {"$deque": [1]},
    {"$str": "////"},
    {"$nonsense": 1},
    math.inf,
]


@pytest.mark.parametrize("plain", ILL_FORMED, ids=lambda plain: f"{plain!r:.40}")
def test_an_ill_formed_document_is_corrupt_and_nothing_worse(plain):
    with pytest.raises(CorruptError):
        decode_tree([plain], leaf=no_tag)


def test_a_document_that_is_too_deep_is_corrupt():
    plain = 0
    for _ in range(DEPTH_MAX * 4):
        plain = [plain]
    with pytest.raises(CorruptError, match="levels deep"):
        decode_tree(plain, leaf=no_tag)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$tuple", "$dict", "$set", "$float", "$range", "$deque", "a"]), inner
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_no_document_does_anything_but_decode_or_be_corrupt(plain):
    with contextlib.suppress(CorruptError):
        decode_tree(plain, leaf=no_tag)
