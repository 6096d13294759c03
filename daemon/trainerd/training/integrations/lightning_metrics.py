"""What Lightning's checkpoints leave out of an epoch in progress: logged results and metrics."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECTOR: Final = (
    "_callback_metrics",
    "_logged_metrics",
    "_progress_bar_metrics",
    "_first_loop_iter",
    "_current_fx",
)
_META: Final = (
    "fx",
    "name",
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "enable_graph",
    "add_dataloader_idx",
    "dataloader_idx",
    "metric_attribute",
)


def running_metrics(trainer: Any) -> dict[str, Any]:
    """Return what the epoch in progress has logged and measured so far."""
    names = {id(metric): name for name, metric in _metrics(trainer.lightning_module)}
    connector = trainer._logger_connector  # noqa: SLF001 - Lightning has no public way to it
    return {
        "results": _results(trainer.fit_loop.epoch_loop._results, names),  # noqa: SLF001
        "metrics": {name: _metric_state(metric) for name, metric in _metrics(trainer.lightning_module)},
        "connector": {name: _copied(getattr(connector, name)) for name in _CONNECTOR},
    }


def put_back_metrics(trainer: Any, saved: dict[str, Any]) -> None:
    """Put back what `running_metrics` has returned."""
    metrics = dict(_metrics(trainer.lightning_module))
    for name, state in saved["metrics"].items():
        if name in metrics:
            _put_back_metric(metrics[name], state)
    connector = trainer._logger_connector  # noqa: SLF001 - as above
    for name, value in saved["connector"].items():
        setattr(connector, name, _copied(value))
    results = trainer.fit_loop.epoch_loop._results  # noqa: SLF001 - as above
    results.clear()
    for key, entry in saved["results"].items():
        if entry["metric"] is None or entry["metric"] in metrics:
            results[key] = _result(trainer, results, entry, metrics)


# ---------------------------------------------------------------------- metrics of the module


def _metrics(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the metrics of torchmetrics in a module, by their attributes: the package need not be there."""
    for name, each in module.named_modules():
        if isinstance(getattr(each, "_defaults", None), dict) and hasattr(each, "_update_count"):
            yield name, each


def _metric_state(metric: Any) -> dict[str, Any]:
    return {
        "values": {name: _copied(getattr(metric, name)) for name in metric._defaults},  # noqa: SLF001
        "count": metric._update_count,  # noqa: SLF001 - torchmetrics saves only what is persistent
    }


def _put_back_metric(metric: Any, state: dict[str, Any]) -> None:
    for name, value in state["values"].items():
        if name in metric._defaults:  # noqa: SLF001 - as above
            setattr(metric, name, _on(metric.device, _copied(value)))
    metric._update_count = state["count"]  # noqa: SLF001 - as above
    metric._computed = None  # noqa: SLF001 - computed again from the values


# ---------------------------------------------------------------------- results of self.log


def _results(results: Any, names: dict[int, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, result in results.items():
        is_metric = not result.is_tensor
        name = names.get(id(getattr(result, "value", None))) if is_metric else None
        if is_metric and name is None:
            continue  # not a part of the module: its state is the user's
        cache = result._forward_cache  # noqa: SLF001 - Lightning has no public way to it
        found[key] = {
            "metric": name,
            "meta": {each: getattr(result.meta, each) for each in _META},
            "reduce": result.meta.reduce_fx.__name__,
            "sync": {
                "_should": result.meta.sync.should,
                "rank_zero_only": result.meta.sync.rank_zero_only,
            },
            "values": {} if is_metric else _metric_state(result)["values"],
            "count": result._update_count,  # noqa: SLF001 - as above
            "cache": cache.clone() if isinstance(cache, torch.Tensor) else None,
            "has_reset": result.has_reset,
        }
    return found


def _result(trainer: Any, results: Any, entry: dict[str, Any], metrics: dict[str, Any]) -> Any:
    package = sys.modules[type(results).__module__]  # of lightning or of pytorch_lightning
    meta = package._Metadata(**entry["meta"], reduce_fx=getattr(torch, entry["reduce"]))  # noqa: SLF001
    meta.sync = package._Sync(fn=trainer.strategy.reduce, **entry["sync"])  # noqa: SLF001
    result = package._ResultMetric(meta, entry["metric"] is None)  # noqa: SLF001
    if entry["metric"] is not None:
        result.value = metrics[entry["metric"]]
    device = trainer.strategy.root_device
    for name, value in entry["values"].items():
        setattr(result, name, value.to(device).clone())
    result._update_count = entry["count"]  # noqa: SLF001 - as above
    result._forward_cache = None if entry["cache"] is None else entry["cache"].to(device)  # noqa: SLF001
    result.has_reset = entry["has_reset"]
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return [_copied(each) for each in value]
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return value


def _on(device: Any, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return [_on(device, each) for each in value] if isinstance(value, list) else value
