"""``neuron models``, ``neuron ps``: what a node holds, and what lies on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli.context import HostOption, JsonOption, node
from neuron.cli.duration import shown
from neuron.errors import UsageError

if TYPE_CHECKING:
    from neuron.wire.node import ModelInfo

EXAMPLES = (
    "neuron models",
    "neuron ps --host gpu1:13131",
    "neuron models --all --json",
    "neuron models --cached",
)

COLUMNS = (
    "ID",
    "STATUS",
    "SIZE",
    "QUANT",
    "DTYPE",
    "DEVICE",
    "CONTEXT",
    "RUNNING",
    "QUEUED",
    "TOK/S",
    "IDLE",
    "TTL",
    "ERROR",
)
CACHED_COLUMNS = ("MODEL", "REVISION", "SIZE", "PATH")


def run(
    context: typer.Context,
    all: Annotated[
        bool, typer.Option("--all", help="Models that failed to load or may be loaded on request, too.")
    ] = False,
    cached: Annotated[
        bool, typer.Option("--cached", help="What was fetched to this machine; asks no node.")
    ] = False,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """List the models that a node has loaded or is loading."""
    if cached:
        if all:
            raise UsageError("--cached lists everything that was fetched; leave out --all")
        source = context.get_parameter_source("host")
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError("--cached lists what is on this machine", hint="leave out --host")
        _show_cached(json)
        return
    from neuron.cli.render import notice, show_json, show_table

    with node(host) as client:
        found = client.models(all=all)
    if json:
        show_json(found)
    elif found:
        width = len(COLUMNS) if any(_error(model) for model in found) else len(COLUMNS) - 1
        show_table(COLUMNS[:width], (_row(model)[:width] for model in found))
    else:
        notice("no models are loaded; neuron load MODEL loads one")


def _row(model: ModelInfo) -> tuple[object, ...]:
    from neuron.cli.render import megabytes

    return (
        model.id,
        model.status,
        megabytes(model.vram_used_mb),
        _kept(model),
        model.dtype or "-",
        model.device or ",".join(f"cuda:{index}" for index in model.devices) or "-",
        model.limit.context,
        "-" if model.alias_of else model.in_flight,
        "-" if model.alias_of else model.queue_depth,
        round(model.tok_s_decode),
        "-" if model.idle_s is None else shown(model.idle_s),
        "pinned" if model.pinned else "-" if model.ttl_s is None else shown(model.ttl_s),
        _error(model),
    )


def _kept(model: ModelInfo) -> str:
    """What most of the weights are in: in the file, and in memory where that is something else."""
    kept = model.weights or model.quant
    return "-" if kept is None else kept if kept == model.quant else f"{model.quant}→{kept}"


def _error(model: ModelInfo) -> str:
    return model.error if isinstance(model.error, str) else ""


def _show_cached(json: bool) -> None:
    from neuron.cli.render import notice, show_json, show_table
    from neuron.sources.cache import cached

    found = cached()
    if json:
        show_json(found)
    elif found:
        show_table(
            CACHED_COLUMNS, ((m.model, m.revision[:12], f"{m.size_bytes >> 20:,} MB", m.path) for m in found)
        )
    else:
        notice("nothing was fetched; neuron pull MODEL fetches a model")
