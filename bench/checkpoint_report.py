"""The tables of the checkpoint benchmark, and how its numbers stand to the targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "trainerd"
MEASURES = ("stall", "true cost", "durable", "load", "step")
DURABLE_SHARES = {"140MB": 0.75, "500MB": 0.9, "2GB": 0.9}

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Target:
    """One line of what was promised.

    Attributes:
        name: What is compared.
        value: As measured.
        limit: As promised.
        is_upper: Whether the value must stay below the limit, or reach it.
    """

    name: str
    value: float
    limit: float
    is_upper: bool = True

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit if self.is_upper else self.value >= self.limit


def judge(size: str, samples: Samples) -> list[Target]:
    """Compare medians with the targets. A ratio to a way to save that was not measured is left out."""
    middle = {name: statistics.median(values) for name, values in samples.items()}
    cost, copy = middle[f"{OURS} true cost"], middle["memcpy"]
    durable, write = middle[f"{OURS} durable"], middle["raw write"]
    targets = [
        Target("stall / memcpy", middle[f"{OURS} stall"] / copy, 1.1),
        Target("true cost / memcpy", cost / copy, 2.0),
        Target("durable rate / raw O_DIRECT", write / durable, DURABLE_SHARES[size], is_upper=False),
        Target("load, verified / raw cold read", middle[f"{OURS} load"] / middle["raw read"], 1.2),
    ]
    for peer in ("torch.save + fsync", "DCP async_save"):
        if f"{peer} true cost" in middle:
            ratio = middle[f"{peer} true cost"] / max(cost, 1e-4)
            targets.append(Target(f"true cost of {peer} / ours", ratio, 7.0, is_upper=False))
    if "torch.save + fsync durable" in middle:
        ratio = durable / middle["torch.save + fsync durable"]
        targets.append(Target("durable / torch.save + fsync", ratio, 1 / 3))
    if "drain" in middle:
        for name, what, limit in (("drain durable", "durable", 1.3), ("drain", "exit", 1.5)):
            ratio = middle[name] / middle["drain write"]
            targets.append(Target(f"SIGTERM to {what}, less the step / raw write", ratio, limit))
    return targets


def print_report(result: dict[str, Any]) -> None:
    samples = result["samples_s"]
    print(
        f"\n{result['size']}: {result['state_bytes'] / 1e6:.0f} MB of state, {result['rounds']} rounds, "
        f"{result['began']}\n{result['command']}\n"
        f"torch {result['torch']} with {result['torch_threads']} threads on {result['cores']} cores, Python "
        f"{result['python']}, Linux {result['kernel']}\n"
        f"load average {result['load_average'][0]} at the beginning, {result['load_average'][1]} at the end: "
        f"a machine with nothing else to do begins below 0.5\n"
    )
    print(f"{'milliseconds: median (quartiles)':<34}{'memcpy':>21}{'raw write':>21}{'raw read':>21}")
    print(
        f"{'the machine':<34}"
        + "".join(spread(samples[name]) for name in ("memcpy", "raw write", "raw read"))
    )
    print(f"\n{'':<34}" + "".join(f"{name:>21}" for name in MEASURES))
    names = [name.removesuffix(" stall") for name in samples if name.endswith(" stall")]
    for name in names:
        print(f"{name:<34}" + "".join(spread(samples[f"{name} {measure}"]) for measure in MEASURES))
    print("\ntimes as much as trainerd")
    for name in names:
        ratios = [
            statistics.median(samples[f"{name} {measure}"]) / statistics.median(samples[f"{OURS} {measure}"])
            for measure in MEASURES
        ]
        print(f"{name:<34}" + "".join(f"{ratio:>20.1f}x" for ratio in ratios))
    if "drain" in samples:
        heads = ("SIGTERM to exit", "after the step", "step to durable", "raw write")
        names = ["drain whole", "drain", "drain durable", "drain write"]
        print(f"\n{'':<34}" + "".join(f"{head:>21}" for head in heads))
        print(f"{'drain':<34}" + "".join(spread(samples[name]) for name in names))
    print()
    for target in result["targets"]:
        sign = "<=" if is_upper(target) else ">="
        print(
            f"{'PASS' if target['is_met'] else 'MISS'}  {target['name']:<45}{target['value']:>8.2f}  "
            f"{sign} {target['limit']:.2f}"
        )


def is_upper(target: dict[str, Any]) -> bool:
    return bool((target["value"] <= target["limit"]) == target["is_met"])


def spread(values: Sequence[float]) -> str:
    """Return the median and the quartiles in milliseconds."""
    low, middle, high = quartiles(values)
    return f"{f'{middle * 1e3:.1f} ({low * 1e3:.0f}-{high * 1e3:.0f})':>21}"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
