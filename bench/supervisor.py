"""What one supervisor carries, and how soon a job that died runs again, beside torchrun and supervisord.

    python -m bench.supervisor                     # 1,000 specs at once, 50 running; then the latencies
    python -m bench.supervisor scale --jobs 100
    python -m bench.supervisor latency --rounds 15 # needs the extra `bench`; says what is missing

Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import sys

from bench.supervisor_scale import measure_scale, report_scale


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["all", "scale", "latency"], default="all")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--limit-s", type=float, default=600.0)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    is_met = True
    if options.what in {"all", "scale"}:
        load = os.getloadavg()[0]
        print(f"{options.jobs} specs dropped at once, {options.at_once} at a time, load before {load:.1f}")
        is_met &= report_scale(measure_scale(options.jobs, options.at_once, limit_s=options.limit_s))
    if options.what in {"all", "latency"}:
        from bench.supervisor_latency import measure_latencies, report_latencies

        print(f"from a rank's death to the next start, {options.rounds} rounds each, in turn")
        is_met &= report_latencies(measure_latencies(options.rounds))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
