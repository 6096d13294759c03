"""The mutants, by area."""

from __future__ import annotations

from tests.mutants.table.agreement import AGREEMENT
from tests.mutants.table.commit import COMMIT
from tests.mutants.table.data_order import DATA_ORDER
from tests.mutants.table.memory_copies import MEMORY_COPIES
from tests.mutants.table.outcome import OUTCOME
from tests.mutants.table.restart import RESTART
from tests.mutants.table.retention import RETENTION

AREAS = {
    "retention": RETENTION,
    "commit": COMMIT,
    "outcome": OUTCOME,
    "restart": RESTART,
    "data order": DATA_ORDER,
    "agreement": AGREEMENT,
    "copies in memory": MEMORY_COPIES,
}

MUTANTS = tuple(mutant for mutants in AREAS.values() for mutant in mutants)
