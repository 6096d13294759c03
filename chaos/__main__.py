"""`python -m chaos`: break things on purpose, and check what is promised."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.faults import REGISTRY
from chaos.harness import why_nothing_can_be_played
from chaos.proofs import PROOFS, is_there, run_proofs
from chaos.run import Settings, clean_up, run_and_report
from chaos.scenario import FOLDER, Scenario, ScenarioError, load, load_all
from chaos.soak import SoakOptions, report_soak, soak
from chaos.waiting import HarnessError, Interruption, StopRequestedError
from chaos.workloads import SOAK_SIZES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VIOLATED, INTERRUPTED, UNUSABLE = 1, 130, 2
DEFAULT_FOLDER: Final = Path(".chaos")
_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 if everything held, 1 if something did not."""
    args = parser().parse_args(arguments)
    say: Callable[[str], None] = _quiet if args.json else _print
    try:
        if args.list:
            return list_everything(as_json=args.json)
        if args.report:
            return report_again(args.report)
        return run(args, say)
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:  # as in `python -m chaos --list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNUSABLE
    except HarnessError as error:
        print(f"the harness gave up: {error}", file=sys.stderr)
        return VIOLATED
    except StopRequestedError:
        print("interrupted; everything that was started has been stopped", file=sys.stderr)
        return INTERRUPTED


def run(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the scenarios or the soak that were asked for.

    Raises:
        ScenarioError: A scenario is not there or cannot be used.
        HarnessError: The harness itself failed.
        StopRequestedError: This program was asked to stop.
    """
    if reason := why_nothing_can_be_played():
        raise ScenarioError(reason)
    interruption = Interruption()
    interruption.install()
    root = args.keep or DEFAULT_FOLDER / time.strftime("%Y%m%d-%H%M%S")
    if root.exists():
        raise ScenarioError(f"{root} is there already: name a new folder")
    root.mkdir(parents=True)
    if args.duration is not None:
        options = SoakOptions(root, SOAK_SIZES[args.workload], args.seed, args.duration, args.mtbf)
        is_held = soak(options, interruption, say)
        results = report_soak(root, say)
    else:
        results = run_and_report(chosen(args), Settings(root, args.seed, say), interruption)
        is_held = all(one["is_held"] for one in results["runs"])
    if args.proofs:
        results["proofs"] = run_proofs(say)
        is_held = is_held and not any(results["proofs"].values())
    if args.json:
        print(json.dumps(results))
    clean_up(root, is_kept=bool(args.keep) or args.duration is not None or not is_held, say=say)
    return 0 if is_held else VIOLATED


def chosen(args: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios that were asked for: by name, by path, or all.

    Raises:
        ScenarioError: One of them is not there or cannot be used.
    """
    if args.all or not args.scenario:
        return load_all()
    paths = [Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml" for name in args.scenario]
    for path in paths:
        if not path.exists():
            raise ScenarioError(f"there is no scenario {path.stem!r}; `python -m chaos --list` names them")
    return [load(path) for path in paths]


def list_everything(*, as_json: bool) -> int:
    """Print the faults and the scenarios."""
    scenarios = load_all()
    if as_json:
        faults = {fault.name: {"what": fault.what, "verdicts": fault.verdicts} for fault in REGISTRY.values()}
        print(json.dumps({"faults": faults, "scenarios": {one.name: one.what for one in scenarios}}))
        return 0
    print("faults")
    for fault in REGISTRY.values():
        print(f"  {fault.name:24} {fault.what}: {', '.join(fault.verdicts) or 'goes on'}")
    print("\nscenarios")
    for scenario in scenarios:
        print(f"  {scenario.name:36} {scenario.what}")
    print("\nproofs")
    for name, what in PROOFS.items():
        print(f"  {name:36} {what}{'' if is_there(name) else ' (not in this checkout)'}")
    return 0


def report_again(root: Path) -> int:
    """Make the report of a folder again."""
    report_soak(root, _print)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    made.add_argument("--list", action="store_true", help="name the faults and the scenarios")
    made.add_argument("--all", action="store_true", help="run every scenario")
    made.add_argument(
        "--proofs",
        action="store_true",
        help=f"then run the proofs that are programs of their own: {', '.join(PROOFS)}",
    )
    made.add_argument("--scenario", action="append", metavar="NAME", help="run this one: a name, or a path")
    made.add_argument(
        "--for", dest="duration", type=duration_s, metavar="8h", help="soak: strike at random for so long"
    )
    made.add_argument(
        "--mtbf", type=duration_s, default=20.0, metavar="20s", help="of the soak: mean time between faults"
    )
    made.add_argument("--workload", choices=sorted(SOAK_SIZES), default="tiny", help="what the soak trains")
    made.add_argument("--seed", type=int, default=1, help="of everything random (default 1)")
    made.add_argument("--keep", type=Path, metavar="DIR", help="keep everything in this new folder")
    made.add_argument(
        "--json", action="store_true", help="print the results as one JSON object, nothing else"
    )
    made.add_argument("--report", type=Path, metavar="DIR", help="make the report of a folder again")
    return made


def duration_s(text: str) -> float:
    """Parse 90, 90s, 5m, 8h or 1d into seconds.

    Raises:
        ArgumentTypeError: It is not one of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: write 90s, 5m or 8h")
    return float(found[1]) * _UNITS_S[found[2] or "s"]


def _print(line: str) -> None:
    print(line, flush=True)


def _quiet(_line: str) -> None:
    return


if __name__ == "__main__":
    sys.exit(main())
