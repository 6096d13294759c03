"""Word linter: `python -m tests.words` checks; `--lower` lowers the baseline, `--all FILE...` lists all."""

from __future__ import annotations

import sys

from tests.words.lint import (
    ROOT,
    beyond,
    counts_of,
    findings_in,
    linted_files,
    lowered,
    read_baseline,
    write_baseline,
)


def main(arguments: list[str]) -> int:
    """Print what is beyond the baseline; return 1 if there is something."""
    findings = [finding for path in linted_files() for finding in findings_in(path)]
    baseline = read_baseline()
    counts = counts_of(findings)
    if arguments[:1] == ["--all"]:
        names = {str((ROOT / name).resolve().relative_to(ROOT)) for name in arguments[1:]}
        print(*(finding for finding in findings if not names or finding.path in names), sep="\n")
        return 0
    if arguments == ["--lower"]:
        baseline = lowered(baseline, counts)
        write_baseline(baseline)
    elif arguments:
        print("usage: python -m tests.words [--lower | --all [FILE...]]")
        return 2
    found = beyond(findings, baseline)
    for finding in found:
        allowed = baseline.get(finding.path, {}).get(finding.rule.name, 0)
        print(f"{finding} ({counts[finding.path][finding.rule.name]} in this file, {allowed} allowed)")
    total = sum(sum(names.values()) for names in baseline.values())
    if found:
        print(
            "\nRewrite one of the lines named for each word; older ones are allowed until they are rewritten."
        )
    elif lowered(baseline, counts) != baseline:
        print("words: fewer than the baseline allows; `python -m tests.words --lower` keeps it so")
    else:
        print(f"words: nothing new; {total} older findings are allowed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
