"""Names datasets and samplers that the script has made within its loop over epochs.

One that is made for each epoch begins afresh in a run left alone; one that is made once, late, goes on from
epoch to epoch. Between two epochs a resume cannot tell which it is. It puts back what there was, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainerd.contract.verdict import Reason
from trainerd.training.data.root_identity import root_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trainerd.training.data.dataset_memory import FirstMarks


def made_late(roots: Mapping[str, Any], saved: Mapping[str, Any], first: FirstMarks) -> Iterator[Reason]:
    """Yield a reason for each dataset or sampler that gets back what one like it had become.

    Args:
        roots: What a loader consists of, by name.
        saved: What `Source.saved` returned between two passes.
        first: What there was before the first epoch of this attempt.
    """
    memory, data = saved.get("memory", {}), saved.get("data", {}).get("now", {})
    parts = (memory.get("attributes", ()), memory.get("generators", ()), data.get("changed", ()))
    names = {root_of(path) for part in parts for path in part}
    for name in sorted(names & roots.keys()):
        kind = type(roots[name])
        if first.is_new(roots[name]) and not kind.__module__.startswith("torch."):
            yield Reason(
                "made-in-epoch",
                kind.__qualname__,
                "is made within the loop over epochs, and has back what one like it had become in the epoch "
                "before: if one is made for each epoch, it would have begun afresh",
                f"make the {kind.__qualname__} before the loop over epochs",
            )
