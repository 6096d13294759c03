"""The command: every state of every scenario, then every mutant; a table of each."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.power_cut.cuts import cut_everywhere, record_scenario
from chaos.power_cut.mutants import explanation, mutants
from chaos.power_cut.scenarios import SCENARIOS
from chaos.waiting import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.power_cut.operations import Trace

__all__ = ["main"]


@dataclass
class _Tally:
    states: int = 0
    losses: int = 0
    mutants: int = 0
    caught: int = 0
    unexplained: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if nothing is ever lost and every mutant is caught or explained."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.power_cut",
        description="Record what a save, a prune, a journal commit and a record do to the disk, "
        "rebuild every state "
        "that a power cut may leave, recover from each, and show that the check catches broken protocols.",
    )
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated"
    )
    parser.add_argument("--long", action="store_true", help="those too that take minutes")
    parser.add_argument("--no-mutants", action="store_true", help="leave out the mutants")
    parser.add_argument(
        "--quick", action="store_true", help="do not try the mutants that are known to lose nothing"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples, where there are too many states")
    parser.add_argument("--trace", action="store_true", help="show what was recorded")
    options = parser.parse_args(arguments)
    names = options.scenario or [name for name, one in SCENARIOS.items() if options.long or not one.is_long]
    tally, began_s = _Tally(), time.monotonic()
    try:
        for name in names:
            trace = record_scenario(name)
            if options.trace:
                print("\n".join(f"    {type(one).__name__:<7}{one.text}" for one in trace.operations))
            _cut(name, trace, tally, seed=options.seed)
            if not options.no_mutants and not SCENARIOS[name].is_bad:
                _cut_mutants(name, trace, tally, seed=options.seed, is_quick=options.quick)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"\n{tally.states} states rebuilt and recovered in {time.monotonic() - began_s:.0f} s: "
        f"{tally.losses} lost anything; {tally.caught} of {tally.mutants} broken protocols caught, "
        f"{tally.unexplained} unexplained"
    )
    return 1 if tally.losses or tally.unexplained else 0


def _cut(name: str, trace: Trace, tally: _Tally, *, seed: int) -> None:
    scenario = SCENARIOS[name]
    cuts = cut_everywhere(trace, scenario, seed=seed)
    sampled = f" ({cuts.sampled} of them a sample)" if cuts.sampled else ""
    if scenario.is_bad:
        tally.mutants += 1
        tally.caught += bool(cuts.violations)
        tally.unexplained += not cuts.violations
        found = f"caught: {cuts.violations[0]}" if cuts.violations else "NOT CAUGHT"
        print(f"{name:<20} {'broken':>8}  {found}", flush=True)
        return
    tally.states += cuts.states
    tally.losses += len(cuts.violations)
    found = f"LOST: {cuts.violations[0]}" if cuts.violations else "nothing is ever lost"
    print(f"{name:<20} {cuts.states:>8}  states{sampled}, {cuts.duration_s:.1f} s: {found}", flush=True)


def _cut_mutants(name: str, trace: Trace, tally: _Tally, *, seed: int, is_quick: bool) -> None:
    for mutant in mutants(trace):
        tally.mutants += 1
        if is_quick and (why := explanation(name, mutant.name)):
            print(f"    {mutant.name}\n        not tried: {why}", flush=True)
            continue
        cuts = cut_everywhere(mutant.trace, SCENARIOS[name], seed=seed)
        if cuts.violations:
            tally.caught += 1
            found = f"caught at state {cuts.states}: {cuts.violations[0]}"
        else:
            why = explanation(name, mutant.name)
            tally.unexplained += why is None
            found = f"loses nothing in {cuts.states} states: {why or 'NO REASON IS KNOWN'}"
        print(f"    {mutant.name}\n        {found}", flush=True)
