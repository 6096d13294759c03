"""Mutants of the outcome: an ending is called something that it was not."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_OUTCOME = "supervisor/machine/outcome.py"
_EVIDENCE = "supervisor/attempt/evidence.py"
_TEST_OUTCOME = "tests/unit/supervisor/machine/test_outcome.py"
_TEST_EVIDENCE = "tests/unit/supervisor/attempt/test_evidence.py"

OUTCOME = (
    Mutant(
        "a drain is believed without verifying digests",
        _EVIDENCE,
        "must_verify=_claims_drained(ending, outcomes)",
        "must_verify=False",
        _TEST_EVIDENCE,
    ),
    Mutant(
        "a request to stop does not make the digests be verified",
        _EVIDENCE,
        "return exit_codes.DRAINED in codes or is_asked or said",
        "return exit_codes.DRAINED in codes or said",
        _TEST_EVIDENCE,
    ),
    Mutant(
        "the checkpoint of an older attempt counts as new",
        _EVIDENCE,
        "is_new = newest is not None and newest.manifest.attempt == attempt",
        "is_new = newest is not None",
        _TEST_EVIDENCE,
    ),
    Mutant(
        "a finished record of another spec counts",
        _EVIDENCE,
        "finished is not None and finished.spec_digest == spec_digest",
        "finished is not None",
        _TEST_EVIDENCE,
    ),
    Mutant(
        "the checkpoint before the newest is not found",
        _EVIDENCE,
        "found[-2].name if len(found) > 1 else None",
        "None",
        _TEST_EVIDENCE,
    ),
    Mutant(
        "a rank that SIGTERM ended is blamed for the failure of another",
        _OUTCOME,
        "        and rank.signal != signal.SIGTERM\n",
        "",
        _TEST_OUTCOME,
    ),
    Mutant(
        "a rank that the shim killed because of a peer is blamed",
        _OUTCOME,
        'if rank.killed_by_shim != "peer"',
        "if True",
        _TEST_OUTCOME,
    ),
    Mutant(
        "a rank that lost a peer is blamed",
        _OUTCOME,
        "        and not _has_lost_a_peer(evidence, rank.rank)\n",
        "",
        _TEST_OUTCOME,
    ),
    Mutant(
        "exit 0 with a checkpoint older than the step counts as drained",
        _OUTCOME,
        "if evidence.is_checkpoint_new and evidence.step == evidence.checkpoint_step:",
        "if evidence.is_checkpoint_new:",
        _TEST_OUTCOME,
    ),
    Mutant(
        "exit 0 after a request to stop counts as finished",
        _OUTCOME,
        "if record.stop_requested_s is None:",
        "if True:",
        _TEST_OUTCOME,
    ),
    Mutant(
        "exit code 85 counts as drained without a new checkpoint",
        _OUTCOME,
        "    if evidence.is_checkpoint_new:\n",
        "    if evidence.checkpoint:\n",
        _TEST_OUTCOME,
    ),
    Mutant(
        "exit code 93 is retried",
        _OUTCOME,
        "if rank.exit_code == exit_codes.NEVER_RETRY:",
        "if False:",
        _TEST_OUTCOME,
    ),
    Mutant(
        "an import error in the middle of training rejects the job",
        _OUTCOME,
        "if not evidence.has_stepped:",
        "if True:",
        _TEST_OUTCOME,
    ),
    Mutant(
        "a kill by the shim at the end of the grace period counts as a kill by the kernel",
        _OUTCOME,
        'if rank.killed_by_shim == "grace":',
        "if False:",
        _TEST_OUTCOME,
    ),
    Mutant(
        "a restart of the machine costs a wait",
        _OUTCOME,
        "Retry.AT_ONCE if evidence.is_after_reboot else Retry.AFTER_BACKOFF",
        "Retry.AFTER_BACKOFF",
        _TEST_OUTCOME,
    ),
)
