"""A run folder that looks as one does after a death and a resume, for the tests of displays."""

from __future__ import annotations

from trainerd.checkpoint.checkpoint_names import PIN_SUFFIX
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.metric_history import HEADER, encode_line
from trainerd.contract.paths import RunPaths, StatePaths

STEPS = 40
BACK_TO = 20
LOST_TO = 28
HOSTILE = "<script>alert(1)</script>\"'&"


def leave_run(paths: StatePaths, name: str, *, metric: str = "loss") -> RunPaths:
    """Leave the history, log and pages of a job that lost steps 21 to 28 and went on from 20."""
    run = paths.run(name)
    run.attempt(2).root.mkdir(parents=True)
    lines = [HEADER]
    lines += [_row(step, metric) for step in range(1, BACK_TO + 1)]
    keep_bytes = sum(map(len, lines))
    lines += [_row(step, metric, wrong=9.0) for step in range(BACK_TO + 1, LOST_TO + 1)]
    marker = {"attempt": 2, "checkpoint": f"step-{BACK_TO:09d}", "step": BACK_TO, "keep_bytes": keep_bytes}
    lines.append(encode_line({"resume": marker}))
    lines += [_row(step, metric) for step in range(BACK_TO + 1, STEPS + 1)]
    run.metrics.write_bytes(b"".join(lines))
    log = run.rank_log(0)
    log.parent.mkdir(parents=True)
    log.write_text(f"epoch 0 begins\n{HOSTILE}\n\x1b[31mred\x1b[0m done\n")
    writer = HeartbeatWriter(run.attempt(2).heartbeat(0), furthest_step=LOST_TO)
    for step in (BACK_TO, STEPS):
        writer.beat(
            Phase.STEP,
            step=step,
            epoch=1,
            epochs=10,
            batch=30,
            batches=100,
            checkpoint_step=BACK_TO,
            loss=0.25,
            saves=3,
            resumed_step=BACK_TO,
            last_save_s=1.5,
        )
    writer.close()
    return run


def pin_file(run: RunPaths, name: str) -> None:
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    (run.checkpoints / f"{name}{PIN_SUFFIX}").write_text("{}")


def _row(step: int, metric: str, wrong: float = 0.0) -> bytes:
    return encode_line({"step": step, "epoch": 0, "batch": step, metric: 1.0 / step + wrong, "lr": 0.1})
