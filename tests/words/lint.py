"""Findings of the word linter, and their comparison with the baseline."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.words.prose import pieces_of
from tests.words.rules import RULES, Rule

ROOT = Path(__file__).parents[2]
BASELINE = Path(__file__).with_name("baseline.json")
LINTED = (
    "*.md",
    "docs/**/*.md",
    "chaos/**/*.md",
    "jobs/**/*.md",
    "systemd/**/*.md",
    "daemon/trainerd/**/*.py",
    "chaos/**/*.py",
    "jobs/**/*.py",
    "systemd/**/*.sh",
    "systemd/**/*.service",
    "Makefile",
)

Counts = dict[str, dict[str, int]]  # by file, then by rule


class Finding(NamedTuple):
    """A place where a rule matches."""

    path: str
    line: int
    rule: Rule

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule.name}: say instead: {self.rule.instead}"


def linted_files(root: Path = ROOT) -> list[Path]:
    """Return the files that the linter reads, without those of virtual environments and state folders."""
    found = {path for pattern in LINTED for path in root.glob(pattern)}
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def findings_in(path: Path, root: Path = ROOT) -> Iterator[Finding]:
    """Yield what the rules find in one file, in the order of lines."""
    name = path.relative_to(root).as_posix()
    found = [
        Finding(name, piece.line + piece.text.count("\n", 0, start), rule)
        for piece in pieces_of(path)
        for rule in RULES
        if rule.where == piece.where
        for start in rule.starts(piece.text)
    ]
    yield from sorted(found, key=lambda finding: (finding.line, finding.rule.name))


def counts_of(findings: Iterable[Finding]) -> Counts:
    """Return how many findings each file has of each rule."""
    counts: Counts = {}
    for (path, name), count in sorted(
        Counter((finding.path, finding.rule.name) for finding in findings).items()
    ):
        counts.setdefault(path, {})[name] = count
    return counts


def beyond(findings: list[Finding], baseline: Counts) -> list[Finding]:
    """Return all findings of a file and rule of which there are more than the baseline allows."""
    counts = counts_of(findings)
    return [
        finding
        for finding in findings
        if counts[finding.path][finding.rule.name] > baseline.get(finding.path, {}).get(finding.rule.name, 0)
    ]


def lowered(baseline: Counts, counts: Counts) -> Counts:
    """Return the baseline with each count that has gone down; no count is raised and none is added."""
    result: Counts = {}
    for path, allowed in baseline.items():
        for name, most in allowed.items():
            if now := min(most, counts.get(path, {}).get(name, 0)):
                result.setdefault(path, {})[name] = now
    return result


def read_baseline() -> Counts:
    """Return the counts that are allowed."""
    counts: Counts = json.loads(BASELINE.read_text("utf-8"))
    return counts


def write_baseline(counts: Counts) -> None:
    """Write the counts that are allowed: one file a line, so that branches merge."""
    rows = ",\n".join(
        f"  {json.dumps(path)}: {json.dumps(counts[path], ensure_ascii=False)}" for path in counts
    )
    BASELINE.write_text("{\n" + rows + "\n}\n" if rows else "{}\n", "utf-8")
