"""Mutants of the copies in memory of several ranks: they are torn, mixed with the disk, or never made."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_COPIES = "training/engine/joint_copies.py"
_RESUME = "training/distributed/joint_resume.py"
_TIER = "training/engine/memory_tier.py"
_RETURN = "checkpoint/memory_return.py"
_TEST = "tests/unit/training/engine/test_joint_copies.py"
_TEST_RESUME = "tests/unit/training/distributed/test_joint_resume.py"
_TEST_TIER = "tests/unit/training/engine/test_memory_tier.py"
_TEST_RETURN = "tests/unit/checkpoint/test_memory_return.py"

MEMORY_COPIES = (
    Mutant(
        "ranks that hold different boundaries make one copy",
        _COPIES,
        'if said["boundary"] != boundary:',
        "if False:",
        _TEST,
    ),
    Mutant(
        "memory is counted for rank 0 alone",
        _COPIES,
        'return size_bytes + sum([int(said["bytes"]) for said in heard.values()])',
        "return size_bytes",
        _TEST,
    ),
    Mutant(
        "a copy that a rank has given up is a problem, and turns the copies off",
        _COPIES,
        'if said.get("is_given_up"):',
        "if False:",
        _TEST,
    ),
    Mutant(
        "what was said of former copies stays in the store",
        _COPIES,
        "            past.forget()  # a rank",
        "            pass  # a rank",
        _TEST,
    ),
    Mutant(
        "a copy that one rank cannot read is taken for a checkpoint on disk",
        _RESUME,
        "if memory is not None and memory.copy_of(damaged) is not None:",
        "if False:",
        _TEST_RESUME,
    ),
    Mutant(
        "the loss of a rank removes the copies",
        _TIER,
        "AbandonedError | NonFiniteLossError | RankLostError)",
        "AbandonedError | NonFiniteLossError)",
        _TEST_TIER,
    ),
    Mutant(
        "the other ranks are not told that rank 0 could not write the copy to disk",
        _TIER,
        '            words.say_problem("returned")\n',
        '            words.say("returned", {})\n',
        _TEST_TIER,
    ),
    Mutant(
        "a copy of another number of ranks is used",
        _RETURN,
        "if copy.world_size != world_size:",
        "if False:",
        _TEST_RETURN,
    ),
)
