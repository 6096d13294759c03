"""Plays scenarios or a soak, keeps the evidence and writes the results down."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from chaos.report import write_report
from chaos.runner import Outcome, ScenarioRunner, why_skipped
from chaos.table import as_text, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chaos.scenario import Scenario
    from chaos.waiting import Interruption

LIMIT_EACH_S: Final = 300.0
LIMIT_TOGETHER_S: Final = 30.0
"""A group of scenarios may take `LIMIT_EACH_S`, so much more for each, and so often what its longest run
sleeps."""
LIMIT_TIMES_UNDISTURBED: Final = 5.0

RESULTS: Final = "chaos.json"


@dataclass(frozen=True)
class Settings:
    """How scenarios are played.

    Attributes:
        root: Folder for everything, which is new.
        seed: Of everything random.
        say: Called with each line of the narration.
    """

    root: Path
    seed: int
    say: Callable[[str], None]


def run_all(scenarios: Sequence[Scenario], settings: Settings, interruption: Interruption) -> list[Outcome]:
    """ScenarioRunner scenarios; those that disturb all jobs of a supervisor have one each to themselves.

    Raises:
        HarnessError: A supervisor does not come up, or left something behind.
        StopRequestedError: This program was asked to stop.
    """
    outcomes = [
        Outcome(scenario, skipped=reason) for scenario in scenarios if (reason := why_skipped(scenario))
    ]
    for outcome in outcomes:
        settings.say(f"skipped   {outcome.scenario.name}: {outcome.skipped}")
    playable = [scenario for scenario in scenarios if not why_skipped(scenario)]
    groups = [[scenario for scenario in playable if not scenario.plays_alone]]
    groups += [[scenario] for scenario in playable if scenario.plays_alone]
    for number, group in enumerate(filter(None, groups)):
        folder = settings.root / f"group-{number}"
        shared = settings.root / "undisturbed"
        runner = ScenarioRunner(folder, group, settings.seed, interruption, undisturbed=shared)
        undisturbed_s = max(one.workload.steps * one.workload.step_ms / 1000 for one in group)
        limit_s = LIMIT_EACH_S + LIMIT_TOGETHER_S * len(group) + LIMIT_TIMES_UNDISTURBED * undisturbed_s
        outcomes += runner.run(limit_s=limit_s, say=lambda outcome: settings.say(_line(outcome)))
    return outcomes


def _line(outcome: Outcome) -> str:
    name = outcome.scenario.name
    if outcome.is_held:
        endings = ", ".join(outcome.endings)
        return f"held      {name}: {endings} ({len(outcome.checks)} checks, {outcome.took_s:.0f} s)"
    broken = [f"    {check.name}: {check.found}" for check in outcome.checks if not check.is_held]
    return "\n".join([f"VIOLATED  {name}", *broken])


def results_of(outcomes: Sequence[Outcome], settings: Settings, *, took_s: float) -> dict[str, Any]:
    """Return what is written down of scenarios."""
    return {
        "format": "trainerd-chaos/1",
        "seed": settings.seed,
        "took_s": took_s,
        "runs": [_run(outcome) for outcome in outcomes if outcome.skipped is None],
        "skipped": {one.scenario.name: one.skipped for one in outcomes if one.skipped is not None},
    }


def _run(outcome: Outcome) -> dict[str, Any]:
    return {
        "job": outcome.scenario.name,
        "what": outcome.scenario.what,
        "is_held": outcome.is_held,
        "took_s": outcome.took_s,
        "attempts": len(outcome.endings),
        "strikes": [asdict(strike) for strike in outcome.strikes],
        "outcomes": [
            {"attempt": number, "kind": kind} for number, kind in enumerate(outcome.endings, start=1)
        ],
        "recoveries": [asdict(recovery) for recovery in outcome.recoveries],
        "checks": [asdict(check) for check in outcome.checks],
    }


def run_and_report(
    scenarios: Sequence[Scenario], settings: Settings, interruption: Interruption
) -> dict[str, Any]:
    """ScenarioRunner scenarios, write down what they came to and say it.

    Raises:
        HarnessError: A supervisor does not come up, or left something behind.
        StopRequestedError: This program was asked to stop.
    """
    began_s = time.monotonic()
    outcomes = run_all(scenarios, settings, interruption)
    results = results_of(outcomes, settings, took_s=time.monotonic() - began_s)
    (settings.root / RESULTS).write_text(json.dumps(results, indent=1))
    broken = [outcome.scenario for outcome in outcomes if not outcome.is_held]
    settings.say("")
    settings.say(as_text(rows_of(results["runs"])))
    settings.say("")
    held = len(results["runs"]) - len(broken)
    summary = (
        f"{held} of {len(results['runs'])} scenarios hold, {len(results['skipped'])} skipped, "
        f"seed {settings.seed}, {results['took_s']:.0f} s"
    )
    settings.say(summary)
    folders = {one.scenario.name: one.folders for one in outcomes if one.folders is not None}
    page = write_report(
        settings.root, results, title="trainerd: chaos scenarios", summary=summary, folders=folders
    )
    settings.say(f"report:   {page}")
    for scenario in broken:
        settings.say(f"replay:   python -m chaos --scenario {scenario.path} --seed {settings.seed}")
    return results


def clean_up(root: Path, *, is_kept: bool, say: Callable[[str], None]) -> None:
    """Remove the evidence of what held, unless it is to be kept. The report and its figures stay."""
    if is_kept:
        say(f"evidence: {root}")
        return
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
