"""Mutants of the data order and the save schedule: samples are skipped or repeated, or a save is not made."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_ORDER = "training/data/order.py"
_STREAMS = "training/data/own_streams.py"
_DRAWING = "training/data/drawing.py"
_SHARDING = "training/data/sharding.py"
_CADENCE = "training/schedule/cadence.py"
_TEST_ORDER = "tests/unit/training/data/test_order.py"
_TEST_SHARDING = "tests/unit/training/data/test_data_sharding.py"
_TEST_SEEDS = "tests/unit/training/data/test_seeds.py"
_TEST_CADENCE = "tests/unit/training/schedule/test_cadence.py"

DATA_ORDER = (
    Mutant(
        "a sampler is not told the epoch",
        _ORDER,
        "each.set_epoch(epoch)",
        "pass",
        _TEST_ORDER,
    ),
    Mutant(
        "the generator of a sampler is not restored",
        _STREAMS,
        "            set_generator_state(generator, state)\n        self._former = []",
        "            pass\n        self._former = []",
        _TEST_ORDER,
    ),
    Mutant(
        "the generator of a sampler is not seeded",
        _STREAMS,
        "            self._seed_found(seed)\n        except",
        "            pass\n        except",
        _TEST_ORDER,
    ),
    Mutant(
        "the order of an epoch does not depend on the epoch",
        _ORDER,
        "order_seed = derive_seed(seed, _ORDER, epoch)",
        "order_seed = derive_seed(seed, _ORDER, 0)",
        _TEST_ORDER,
    ),
    Mutant(
        "the global generators are not seeded for a sampler",
        _DRAWING,
        "    streams.begin(seed)\n    try:\n        order",
        "    try:\n        order",
        _TEST_ORDER,
    ),
    Mutant(
        "drop_last is ignored",
        _ORDER,
        "full if drop_last or rest == 0 else full + 1",
        "full if rest == 0 else full + 1",
        _TEST_ORDER,
    ),
    Mutant(
        "a distributed sampler shards what is sharded already",
        _ORDER,
        "return type(inner) is not DistributedSampler and hasattr",
        "return hasattr",
        _TEST_SHARDING,
    ),
    Mutant(
        "the samples of the last round are lost",
        _SHARDING,
        "if rest and not drops_rest:",
        "if False:",
        _TEST_SHARDING,
    ),
    Mutant(
        "drop_last does not drop what does not fill a round",
        _SHARDING,
        "if rest and not drops_rest:",
        "if rest:",
        _TEST_SHARDING,
    ),
    Mutant(
        "after a change of the number of ranks, batches that were used come again",
        _SHARDING,
        "self._batches[plan.resharded_after + round_",
        "self._batches[round_",
        _TEST_SHARDING,
    ),
    Mutant(
        "two ranks use the same random numbers",
        _SHARDING,
        "(batch - plan.resharded_at) * plan.world_size + plan.rank",
        "(batch - plan.resharded_at) * plan.world_size",
        _TEST_SHARDING,
    ),
    Mutant(
        "the rest of an epoch is not split evenly",
        _SHARDING,
        "begin = plan.rank * least + min(plan.rank, more)",
        "begin = plan.rank * least",
        _TEST_SHARDING,
    ),
    Mutant(
        "seeds do not depend on the order of their parts",
        "training/data/seeds.py",
        "state = (state ^ (part & _MASK)) + _GAMMA & _MASK",
        "state = state ^ (part & _MASK); continue",
        _TEST_SEEDS,
    ),
    Mutant(
        "a save that became due between two boundaries is not made",
        _CADENCE,
        "step // cadence.steps > last.step // cadence.steps",
        "step % cadence.steps == 0",
        _TEST_CADENCE,
    ),
    Mutant(
        "a step is saved twice",
        _CADENCE,
        "if step <= last.step:",
        "if step < last.step:",
        _TEST_CADENCE,
    ),
    Mutant(
        "the end of an epoch with a score is not saved",
        _CADENCE,
        "    if has_score:\n",
        "    if False:\n",
        _TEST_CADENCE,
    ),
)
