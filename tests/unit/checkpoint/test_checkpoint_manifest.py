"""The manifest: exact, self-checking, and strict about what it reads."""

from __future__ import annotations

import json
import math

import pytest

from tests.support.checkpoints import make_manifest, signed
from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.checkpoint.manifest import FileEntry, NewerFormatError, decode_manifest, encode_manifest
from trainerd.errors import CorruptError, UnsupportedValueError

DIGEST = "xxh3-128:" + "5" * 32
FULL = make_manifest(
    120,
    parent="step-000000100",
    scores={"accuracy": 0.1 + 0.2, "loss": 5e-324},
    fingerprint={"torch": "2.13", "shapes": {"fc": (10, 3)}, "limit": math.inf, 7: [None, True]},
    files=(FileEntry("rank-00000.json", 12, DIGEST),),
    created_wall_s=1_800_000_000.25,
    is_final=True,
)


def document():
    return json.loads(encode_manifest(FULL))


def test_a_manifest_comes_back_exactly():
    assert decode_manifest(encode_manifest(FULL)) == FULL


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_json_lacks_come_back(score):
    text = encode_manifest(make_manifest(1, scores={"loss": score}))
    json.loads(text, parse_constant=pytest.fail)
    assert str(decode_manifest(text).scores["loss"]) == str(score)


def test_any_flipped_bit_is_found():
    text = encode_manifest(FULL)
    for position in range(len(text)):
        for bit in range(8):
            damaged = bytearray(text)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptError):
                decode_manifest(bytes(damaged))


def test_any_cut_is_found():
    text = encode_manifest(FULL)
    for length in range(len(text)):
        with pytest.raises(CorruptError):
            decode_manifest(text[:length])


def test_the_rule_for_the_digest_is_as_documented():
    text = encode_manifest(FULL)
    digest = json.loads(text)["digest"]
    zeroed = text.replace(digest.encode(), b"xxh3-128:" + b"0" * 32, 1)
    assert digest == digest_of_bytes(zeroed)


def test_a_newer_format_is_refused_by_name_and_not_called_corrupt():
    with pytest.raises(NewerFormatError, match=r"trainerd\.checkpoint/2"):
        decode_manifest(signed(document() | {"format": "trainerd.checkpoint/2", "step": "one hundred"}))


def test_a_field_that_is_not_known_is_ignored():
    assert decode_manifest(signed(document() | {"colour": "blue"})) == FULL


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "trainerd.job/1"},
        {"step": "120"},
        {"step": True},
        {"scores": []},
        {"scores": {"a": "high"}},
        {"scores": {"a": None}},
        {"fingerprint": {"$nonsense": 1}},
        {"files": {}},
        {"files": [{"name": "a", "bytes": 1}]},
        {"files": [{"name": "../a", "bytes": 1, "digest": DIGEST}]},
        {"files": [{"name": "a/b", "bytes": 1, "digest": DIGEST}]},
        {"files": [{"name": ".a", "bytes": 1, "digest": DIGEST}]},
        {"files": [{"name": "", "bytes": 1, "digest": DIGEST}]},
        {"files": [{"name": "manifest.json", "bytes": 1, "digest": DIGEST}]},
        {"files": [{"name": "a", "bytes": -1, "digest": DIGEST}]},
        {"files": [{"name": "a", "bytes": 1, "digest": "md5:00"}]},
        {"files": [{"name": "a", "bytes": 1, "digest": DIGEST}] * 2},
    ],
    ids=str,
)
def test_what_is_ill_formed_is_corrupt_though_its_digest_is_right(changes):
    with pytest.raises(CorruptError) as raised:
        decode_manifest(signed(document() | changes))
    assert "does not match" not in raised.value.message


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'"digest": "xxh3-128:"'])
def test_what_is_no_manifest_is_corrupt(text):
    with pytest.raises(CorruptError):
        decode_manifest(text)


def test_a_fingerprint_that_has_no_exact_form_is_refused_by_its_path():
    with pytest.raises(UnsupportedValueError, match=r"fingerprint\.config\.loss"):
        encode_manifest(make_manifest(1, fingerprint={"config": {"loss": print}}))
