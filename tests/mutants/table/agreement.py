"""Mutants of the agreement between ranks: they save or drain at different boundaries, or wait for ever."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_AGREEMENT = "training/distributed/agreement.py"
_RANKS = "training/distributed/rank_store.py"
_TEST = "tests/unit/training/distributed/test_agreement.py"
_TEST_RANKS = "tests/unit/training/distributed/test_rank_store.py"

AGREEMENT = (
    Mutant(
        "a request to stage replaces a request to save",
        _AGREEMENT,
        'is_less = self._request is not None and action == "stage"',
        "is_less = False",
        _TEST,
    ),
    Mutant(
        "a rank waits for the proposal of a dead one",
        _AGREEMENT,
        "                return 0\n            self._ranks.look_for_the_lost()\n",
        "                return 0\n",
        _TEST,
    ),
    Mutant(
        "the decision is the first of the proposed boundaries, which some ranks have passed",
        _AGREEMENT,
        "JointDecision(max(proposals),",
        "JointDecision(min(proposals),",
        _TEST,
    ),
    Mutant(
        "a rank inside a step proposes the boundary behind it",
        _AGREEMENT,
        "return self._boundary + 1 if self._is_inside_step else self._boundary",
        "return self._boundary",
        _TEST,
    ),
    Mutant(
        "a rank goes past its proposal before it knows the decision",
        _AGREEMENT,
        "return self._lost is not None or self._has_proposed() or any(",
        "return self._lost is not None or any(",
        _TEST,
    ),
    Mutant(
        "a rank that has finished proposes an ordinary boundary",
        _AGREEMENT,
        "        if self._is_past_all:\n            return _PAST_ALL\n",
        "",
        _TEST,
    ),
    Mutant(
        "a request is not forgotten when it was decided",
        _AGREEMENT,
        "            self._request = None  #",
        "            #",
        _TEST,
    ),
    Mutant(
        "the main thread is not told that another rank is gone",
        _AGREEMENT,
        "                self._lost = error\n",
        "",
        _TEST,
    ),
    Mutant(
        "a rank asks for a save that is decided already",
        _AGREEMENT,
        "if not is_less and not self._is_decided(_SERVED_BY[action]):",
        "if not is_less:",
        _TEST,
    ),
    Mutant(
        "a rank that said farewell counts as lost",
        _RANKS,
        'and _has_ended(process) and not self.has(f"left/{rank}"):',
        "and _has_ended(process):",
        _TEST_RANKS,
    ),
    Mutant(
        "the second rank to ask overwrites what the first one asked for",
        _RANKS,
        'self._ask(lambda: self._store.compare_set(key, "", json.dumps(value)))',
        "self._ask(lambda: self._store.set(key, json.dumps(value)))",
        _TEST_RANKS,
    ),
)
