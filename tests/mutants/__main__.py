"""The command: `python -m tests.mutants`. It exits with 1 if a mutant survived or could not be run."""

from __future__ import annotations

import argparse
import sys
import time

from tests.mutants.mutant import Mutant
from tests.mutants.run import Result, run_mutants
from tests.mutants.table import AREAS, MUTANTS


def main() -> int:
    """Run what the command line chooses; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the mutants and run none")
    parser.add_argument(
        "--only", type=int, nargs="+", metavar="N", help="run only the mutants of these numbers"
    )
    parser.add_argument("--area", choices=AREAS, help="run only the mutants of one area")
    parser.add_argument(
        "--processes", type=int, default=2, metavar="N", help="run so many at a time (default: 2)"
    )
    options = parser.parse_args()

    mutants = dict(enumerate(MUTANTS, start=1))
    unknown = sorted(set(options.only or ()) - set(mutants))
    if unknown:
        parser.error(f"no mutant {unknown[0]}: there are {len(mutants)}")
    chosen = [
        (number, mutant)
        for number, mutant in mutants.items()
        if (not options.only or number in options.only)
        and (not options.area or mutant in AREAS[options.area])
    ]
    if options.list:
        for number, mutant in chosen:
            print(f"{_row(number, mutant)}  {mutant.file}  {mutant.caught_by}")
        return 0

    def report(result: Result) -> None:
        row = _row(result.number, mutants[result.number])
        print(f"{result.verdict:8} {result.seconds:5.1f} s  {row}", flush=True)
        if result.detail:
            print(f"    {result.detail}", flush=True)

    began_s = time.monotonic()
    results = run_mutants(chosen, processes=options.processes, report=report)
    caught = sum(result.verdict == "caught" for result in results)
    print(f"in {time.monotonic() - began_s:.0f} s")
    print(f"{caught} passed, {len(results) - caught} failed")
    return 0 if caught == len(results) else 1


def _row(number: int, mutant: Mutant) -> str:
    area = next(name for name, mutants in AREAS.items() if mutant in mutants)
    return f"{number:3}  {area:10}  {mutant.what}"


if __name__ == "__main__":
    sys.exit(main())
