"""The results of one run that was killed once, with the histories that belong to it."""

from trainerd.contract.metric_history import HEADER, encode_line


def results_with_one_restart(folder):
    """Return results as chaos writes them down, and the folders of the two runs."""
    losses = [1.0, 0.7, 0.5, 0.4]
    rows = [encode_line({"step": step, "loss": loss}) for step, loss in enumerate(losses, start=1)]
    kept = HEADER + b"".join(rows[:2])
    marker = {"resume": {"attempt": 2, "checkpoint": "step-000000002", "step": 2, "keep_bytes": len(kept)}}
    for name, content in {
        "disturbed": kept + rows[2] + encode_line(marker) + b"".join(rows[2:]),
        "undisturbed": HEADER + b"".join(rows),
    }.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "metrics.jsonl").write_bytes(content)
    run = {
        "job": "killed",
        "what": "a rank is killed",
        "attempts": 2,
        "strikes": [
            {
                "fault": "rank-sigkill",
                "job": "killed",
                "attempt": 1,
                "step": 3,
                "detail": "SIGKILL",
                "monotonic_s": 10.0,
            }
        ],
        "outcomes": [{"attempt": 1, "kind": "killed"}, {"attempt": 2, "kind": "finished"}],
        "recoveries": [{"attempt": 1, "lost_steps": 1, "resumed_s": 12.5}],
        "checks": [{"name": "final weights equal", "is_held": True, "found": "the same"}],
    }
    return {"runs": [run]}, {"killed": (folder / "disturbed", folder / "undisturbed")}
