"""Every state that a power cut may leave of a save, a prune, a journal commit and a record is recovered
from."""

from __future__ import annotations

import shutil

import pytest

from chaos.power_cut.cuts import cut_everywhere, record_scenario
from chaos.power_cut.mutants import explanation, mutants
from chaos.power_cut.scenarios import SCENARIOS

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing"),
    pytest.mark.timeout(600),  # thousands of states, on a machine that may be busy
]

RIGHT = [name for name, one in SCENARIOS.items() if not one.is_bad and not one.is_long]
SLOW = {"save", "first-save", "journal", "new-journal"}
"""Hundreds or thousands of states each."""


@pytest.fixture(scope="module")
def recorded():
    """Record each scenario once."""
    traces = {}

    def record(name):
        if name not in traces:
            traces[name] = record_scenario(name)
        return traces[name]

    return record


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RIGHT]
)
def test_nothing_is_lost_in_any_state(recorded, name):
    cuts = cut_everywhere(recorded(name), SCENARIOS[name])
    assert not cuts.violations, str(cuts.violations[0])
    assert cuts.states > 20
    assert not cuts.sampled, "every state was tried"


@pytest.mark.parametrize("name", [name for name in RIGHT if "journal" not in name])
def test_every_mutant_of_our_protocols_is_caught(recorded, name):
    tried = 0
    for mutant in mutants(recorded(name)):
        if explanation(name, mutant.name) is None:
            assert cut_everywhere(mutant.trace, SCENARIOS[name]).violations, mutant.name
            tried += 1
    assert tried >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RIGHT if "journal" in name])
def test_every_mutant_of_the_journal_is_caught(recorded, name):
    for mutant in mutants(recorded(name)):
        if explanation(name, mutant.name) is None:
            assert cut_everywhere(mutant.trace, SCENARIOS[name]).violations, mutant.name


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if one.is_bad])
def test_a_protocol_that_is_known_to_be_wrong_is_caught(recorded, name):
    assert cut_everywhere(recorded(name), SCENARIOS[name]).violations


def test_a_save_touches_the_disk_as_documented(recorded):
    """Sync each file, the manifest last, then its folder, then rename once, then sync the parent."""
    texts = [one.text for one in recorded("save").operations]
    syncs = [text for text in texts if text.startswith(("fsync", "rename checkpoints/.writer"))]
    last_parts = [text.rpartition("/")[2] for text in syncs]
    assert last_parts[1:4] == ["rank-00000.safetensors", "rank-00000.json", "manifest.json"]
    assert last_parts[4].startswith(".staging-step-000000004")
    assert last_parts[5:7] == ["step-000000004"] * 2  # the two halves of one rename
    assert syncs[7] == "fsync checkpoints"
