"""Runs the demo: `python -m chaos.demo`. Exits with 0 only if the two runs are equal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from chaos.demo.screen import Screen
from chaos.demo.story import DemoOptions, tell
from chaos.waiting import HarnessError, Interruption, StopRequestedError
from trainerd.errors import TrainerdError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the demo and return its exit code."""
    options, svg = parse_arguments()
    interruption = Interruption()
    interruption.install()
    screen = Screen()
    try:
        with screen:
            equal = tell(options, screen, interruption)
    except StopRequestedError:
        print("interrupted: everything was drained, nothing is left running")
        return EXIT_INTERRUPTED
    except (HarnessError, TrainerdError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    if svg is not None:
        screen.save_svg(svg)
    return 0 if equal else EXIT_FAILED


def parse_arguments() -> tuple[DemoOptions, Path | None]:
    """Read the command line: the options, and where to save a picture."""
    parser = argparse.ArgumentParser(prog="python -m chaos.demo", description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=Path(".demo"), help="folder of the demo (default: .demo)"
    )
    parser.add_argument(
        "--job",
        choices=("resnet18", "small", "tiny"),
        default="resnet18",
        help="what to train: the mnist example with one of its models, or the tiny example",
    )
    parser.add_argument("--svg", type=Path, help="also save a picture of the demo at work")
    arguments = parser.parse_args()
    return DemoOptions(root=arguments.root.resolve(), job=arguments.job), arguments.svg


if __name__ == "__main__":
    sys.exit(main())
