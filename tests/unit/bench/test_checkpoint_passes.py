"""The passes over the bytes of a save are measured on the same bytes, and drains judged by two limits."""

import pytest

from bench.checkpoint_passes import Passes
from bench.checkpoint_report import OURS, judge

pytestmark = pytest.mark.torch


def test_every_pass_sees_the_same_bytes(tmp_path):
    passes = Passes(3 << 20, tmp_path)
    took = passes.round()
    assert set(took) == set(passes.ways)
    assert all(each >= 0 for each in took.values())
    assert (tmp_path / "file").stat().st_size == 3 << 20

    passes.ways["another content"] = lambda: "xxh3-128:0"
    with pytest.raises(ValueError, match="one content has several digests"):
        passes.round()


def samples(**drain):
    ours = {f"{OURS} {name}": [0.1] for name in ("stall", "true cost", "durable", "load")}
    raw = {name: [0.1] for name in ("memcpy", "raw write", "raw read", "drain write")}
    return ours | raw | drain


def test_a_drain_is_durable_within_one_limit_and_gone_within_another():
    drain = {"drain": [0.14], "drain durable": [0.131], "drain whole": [0.3]}
    met = {target.name: target.is_met for target in judge("140MB", samples(**drain))}
    assert met["SIGTERM to durable, less the step / raw write"] is False
    assert met["SIGTERM to exit, less the step / raw write"] is True
    assert not any("SIGTERM" in target.name for target in judge("140MB", samples()))
