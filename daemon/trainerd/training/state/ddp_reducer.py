"""What `DistributedDataParallel` keeps to itself about its buckets, and how its reducer is replaced.

torch has no public way to read or set the order of the buckets. The names used here are the same from torch
2.6 to 2.13, and this is the only module that uses them. The method that builds a reducer, which torch calls
too when a replica is unpickled, is given the parameters in the order that the buckets are to have; the new
reducer then rebuilds its buckets in the order of its parameters.
"""

# ruff: noqa: SLF001 - see above

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.parallel import DistributedDataParallel

from trainerd.training.state.live_objects import live_instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_BUILTIN_HOOK: Final = "BuiltinCommHookType."
_NEEDED: Final = (
    "_build_debug_param_to_name_mapping",
    "_build_params_for_reducer",
    "_comm_hooks",
    "_ddp_init_helper",
    "_has_rebuilt_buckets",
)
_NEEDED_OF_REDUCER: Final = ("_push_all_rebuilt_params", "_rebuild_buckets", "_remove_autograd_hooks")


class BucketOrderError(Exception):
    """The order of the buckets cannot be set. Never leaves the package."""


def replicas(objects: Iterable[object]) -> Iterator[DistributedDataParallel]:
    """Yield all replicas of this process that have a reducer. Goes through all objects.

    Args:
        objects: Where replicas may be too, out of sight of the garbage collector after ``gc.freeze()``.
    """
    inner = [each for value in objects if isinstance(value, torch.nn.Module) for each in value.modules()]
    seen: set[int] = set()
    for each in [*inner, *live_instances(_is_replica)]:
        if _is_replica(type(each)) and hasattr(each, "reducer") and id(each) not in seen:
            seen.add(id(each))
            yield each


def _is_replica(kind: type) -> bool:
    # isinstance() would ask objects that pretend to be of another class
    return issubclass(kind, DistributedDataParallel)


def missing_in(replica: DistributedDataParallel) -> str:
    """Return what this version of torch lacks, empty if nothing."""
    lacking = [name for name in _NEEDED if not hasattr(replica, name)]
    lacking += [name for name in _NEEDED_OF_REDUCER if not hasattr(replica.reducer, name)]
    return ", ".join(lacking)


def reduced_parameters(replica: DistributedDataParallel) -> tuple[list[torch.nn.Parameter], list[bool]]:
    """Return the parameters that the reducer has, in its order, and whether their gradients are sparse."""
    private: Any = replica
    parameters, is_sparse = private._build_params_for_reducer()
    return list(parameters), list(is_sparse)


def has_rebuilt(replica: DistributedDataParallel) -> bool:
    """Tell whether the buckets are in the order in which gradients arrived."""
    return bool(getattr(replica, "_has_rebuilt_buckets", False))


def is_reducing(replica: DistributedDataParallel) -> bool:
    """Tell whether gradients are reduced in this backward pass; they are not within ``no_sync()``."""
    return bool(getattr(replica, "require_forward_param_sync", True))


def takes_uneven_inputs(replica: DistributedDataParallel) -> bool:
    """Tell whether this is within ``join()``: ranks without batches mirror the others."""
    return bool(getattr(getattr(replica, "_join_config", None), "enable", False))


def uses_compiled_autograd(replica: DistributedDataParallel) -> bool:
    """Tell whether compiled code reduces the gradients, one by one."""
    return bool(getattr(replica, "_use_python_reducer", False))


def hooks(replica: DistributedDataParallel) -> list[tuple[Any, Any]]:
    """Return the communication hooks that are Python functions, each with the object that it is given."""
    return list(getattr(replica, "_comm_hooks", ()))


def has_hooks(replica: DistributedDataParallel) -> bool:
    """Tell whether the gradients are communicated in a way of the script's own."""
    return bool(hooks(replica)) or _builtin_hook(replica) is not None


def logged_order(replica: DistributedDataParallel) -> list[int] | None:
    """Return the order of the buckets that DDP has logged, as numbers of parameters.

    It logs it in one of the first ten steps after the second. None if it has not, or has no such log.
    """
    said = _logged(replica, "rebuilt_per_bucket_param_indices")
    return [int(number) for number in said.replace(",", " ").split()] or None


def replace_reducer(
    replica: DistributedDataParallel,
    parameters: Sequence[torch.nn.Parameter],
    is_sparse: Sequence[bool],
    *,
    rebuilds_now: bool,
) -> None:
    """Give the replica a reducer whose buckets are in the order of `parameters`.

    Args:
        replica: It has made no backward pass since its last step.
        parameters: All parameters that it reduces.
        is_sparse: Whether the gradient of each is sparse.
        rebuilds_now: Whether all ranks of its process group rebuild the buckets here, with a collective.
            Otherwise they do in their next forward pass.

    Raises:
        BucketOrderError: torch does not do it.
    """
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)  # as when the replica was made
        _build_reducer(replica, list(parameters), list(is_sparse))
        replica.reducer._push_all_rebuilt_params()
        if rebuilds_now and replica.reducer._rebuild_buckets():
            replica._has_rebuilt_buckets = True
    except (AttributeError, TypeError) as error:
        raise BucketOrderError(f"{type(error).__name__}: {error}") from error
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _build_reducer(
    replica: DistributedDataParallel, parameters: list[torch.nn.Parameter], is_sparse: list[bool]
) -> None:
    private: Any = replica
    distributed: Any = torch.distributed
    former, builtin = private.reducer, _builtin_hook(replica)
    names = private._build_debug_param_to_name_mapping(parameters)
    private._ddp_init_helper(parameters, is_sparse, names, private.static_graph)
    former._remove_autograd_hooks()
    if private.static_graph:
        private._static_graph_delay_allreduce_enqueued = False
        private.reducer._set_static_graph()
        private.logger._set_static_graph()
    for hook, state in private._comm_hooks:
        private.logger._set_comm_hook_name(hook.__qualname__)
        distributed._register_comm_hook(private.reducer, state, hook)
    if builtin is not None:
        private._register_builtin_comm_hook(builtin)
    if private.mixed_precision is not None:
        private.reducer._set_mixed_precision_param_dtype(private.mixed_precision.param_dtype)
    if any(hasattr(parameter, "_in_backward_optimizers") for parameter in parameters):
        private.reducer._set_optimizer_in_backward()


def _builtin_hook(replica: DistributedDataParallel) -> Any:
    name = _logged(replica, "comm_hook")
    if not name.startswith(_BUILTIN_HOOK):
        return None
    kinds: Any = torch.distributed
    return kinds.BuiltinCommHookType.__members__.get(name.removeprefix(_BUILTIN_HOOK))


def _logged(replica: DistributedDataParallel, key: str) -> str:
    try:
        return str(dict(replica._get_ddp_logging_data()).get(key, ""))  # type: ignore[no-untyped-call]
    except (AttributeError, TypeError, RuntimeError):
        return ""  # a log may be missing; the order is observed besides
