"""Mutants of retention: a checkpoint is deleted that must stay, or kept for the wrong reason."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_RETENTION = "checkpoint/retention.py"
_TEST_RETENTION = "tests/unit/checkpoint/test_checkpoint_retention.py"
_TEST_STAGING = "tests/unit/checkpoint/test_checkpoint_staging.py"
_TEST_READING = "tests/unit/checkpoint/test_checkpoint_reading.py"

RETENTION = (
    Mutant(
        "keep_last keeps one checkpoint too few",
        _RETENTION,
        "if not candidate.is_saved_at_end][:count]",
        "if not candidate.is_saved_at_end][: count - 1]",
        _TEST_RETENTION,
    ),
    Mutant(
        "checkpoints that crashes save push others out of keep_last",
        _RETENTION,
        "manifest.reason in SAVED_AT_END,",
        "False,",
        "tests/unit/checkpoint/test_checkpoint_store.py",
    ),
    Mutant(
        "a pinned checkpoint is pruned",
        _RETENTION,
        "_by_name(pinned or {},",
        "_by_name({},",
        _TEST_RETENTION,
    ),
    Mutant(
        "a protected checkpoint is pruned",
        _RETENTION,
        "_by_name(_with_reasons(protected),",
        "_by_name({},",
        _TEST_RETENTION,
    ),
    Mutant(
        "a checkpoint that is being read is pruned",
        _RETENTION,
        'dict.fromkeys(in_use, "")',
        "{}",
        _TEST_RETENTION,
    ),
    Mutant(
        "the newest verified checkpoint is pruned",
        _RETENTION,
        '        yield newest_verified, "newest verified"\n',
        "",
        _TEST_RETENTION,
    ),
    Mutant(
        "checkpoints are pruned although none is verified",
        _RETENTION,
        "    if newest_verified is not None:\n",
        "    if True:\n",
        _TEST_RETENTION,
    ),
    Mutant(
        "an infinite score ranks as the best",
        _RETENTION,
        "if math.isfinite(candidate.scores",
        "if not math.isnan(candidate.scores",
        _TEST_RETENTION,
    ),
    Mutant(
        "on_tie is ignored",
        _RETENTION,
        'reverse=rule.on_tie == "latest"',
        "reverse=False",
        _TEST_RETENTION,
    ),
    Mutant(
        "the lowest score counts as the best under mode: max",
        _RETENTION,
        'sign = -1.0 if rule.mode == "max" else 1.0',
        "sign = 1.0",
        _TEST_RETENTION,
    ),
    Mutant(
        "of two boundaries at one step, the earlier one counts as newer",
        _RETENTION,
        "return self.step, self.ordinal",
        "return self.step, -self.ordinal",
        _TEST_RETENTION,
    ),
    Mutant(
        "keep_every keeps the first checkpoint of all",
        _RETENTION,
        "seen = {0.0}",
        "seen = set()",
        _TEST_RETENTION,
    ),
    Mutant(
        "a checkpoint that somebody began to read is renamed for removal",
        "checkpoint/removal.py",
        "if not is_free:",
        "if False:",
        _TEST_READING,
    ),
    Mutant(
        "the newest checkpoint counts as verified without a look at its digests",
        "checkpoint/store.py",
        "if checkpoint.name not in self._verified:",
        "if False:",
        _TEST_STAGING,
    ),
)
