"""``neuron load``: have a node load a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from neuron.cli.context import HostOption, JsonOption, ModelArgument, node
from neuron.cli.duration import seconds
from neuron.cli.plan import show_plan
from neuron.cli.progress import progress_on_stderr
from neuron.errors import AlreadyLoaded, UsageError
from neuron.progress import Progress

if TYPE_CHECKING:
    from neuron.client import NodeClient
    from neuron.wire.node import ModelSpec

EXAMPLES = (
    "neuron load smollm2",
    "neuron load Qwen/Qwen3-0.6B --dtype bfloat16 --host gpu1",
    "neuron load ./model.gguf --alias assistant --ttl 10m",
    "neuron load qwen3-0.6b --plan",
    "neuron load smollm2 --no-pin --ttl 1h",
    "neuron load Qwen/Qwen3-0.6B --quant int8",
)
ALREADY, CHANGED, ONE_MORE_ID = "already loaded", "changed", "also served as"
PLAN_S = 120.0
"""How long a node may take for its first plan: it imports torch."""

Dtype = Literal["float32", "bfloat16", "float16"]
Quant = Literal["int8", "int4"]


def run(
    model: ModelArgument,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            metavar="DTYPE", help="float32, bfloat16 or float16 [the device's own].", show_default=False
        ),
    ] = None,
    quant: Annotated[
        Quant | None,
        typer.Option(
            metavar="QUANT",
            help="Turn the matrices into narrower ones: int8 or int4 [as they are stored].",
            show_default=False,
        ),
    ] = None,
    alias: Annotated[str | None, typer.Option(metavar="ID", help="Serve it under this id.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N [the node's own].")
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Unload it once it was idle for so long: 600, 10m, 2h; never [the node's own].",
        ),
    ] = None,
    pin: Annotated[
        bool | None,
        typer.Option(
            "--pin/--no-pin",
            help="Unload it only by its name, or not so [the node's own].",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Load it although its memory seems too little.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the load, or let the node go on alone.")
    ] = True,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Load nothing: say what it would take; fails (1) if it doesn't fit."),
    ] = False,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Have a node fetch and load a model.

    A model that is loaded already counts as success. --ttl, --pin and --no-pin change one that is loaded, --alias
    gives it one more id; other files, another --dtype, --quant or --device than it has are an error, until it is
    unloaded. A path is one on the node's machine; on this machine it may be relative. --plan reads the headers
    of the files alone, on the hub too if the node has not fetched them.
    """
    from neuron.cli.render import notice
    from neuron.wire.node import ModelSpec

    ttl_s = None if ttl is None else 0.0 if ttl == "never" else seconds(ttl, "--ttl")
    if plan:
        _refuse_with_plan(
            {
                "--alias": alias,
                "--ttl": ttl,
                "--pin": pin is not None,
                "--force": force,
                "--no-wait": not wait,
            }
        )
    with node(host, answer_s=PLAN_S) as client:
        reference = reference_for(client.url, model)
        if plan:
            raise typer.Exit(show_plan(client, reference, dtype=dtype, quant=quant, device=device, json=json))
        spec = ModelSpec(
            model_id=reference,
            dtype=dtype,
            quant=quant,
            alias=alias,
            device=device,
            ttl_s=ttl_s,
            pin=pin,
            force=force or None,
        )
        if force:
            notice("neuron: the memory is not checked (--force); files are")
        status = load_with_progress(client, spec) if wait else start(client, spec)
    _show(alias or served_as(model), status, json)


def _refuse_with_plan(said: dict[str, object]) -> None:
    if useless := [flag for flag, value in said.items() if value]:
        raise UsageError(f"--plan loads nothing, so {', '.join(useless)} can't be given with it")


def start(client: NodeClient, spec: ModelSpec) -> str:
    """Ask and leave; ``loading``, ``changed``, ``also served as`` or ``already loaded``."""
    try:
        answer = client.start_load(spec)
    except AlreadyLoaded:
        return ALREADY
    return _changed(answer.changed) or answer.status


def _changed(names: list[str]) -> str:
    """What to say of a load whose model was in memory; empty where it was not."""
    return ONE_MORE_ID if "alias" in names else CHANGED if names else ""


def load_with_progress(client: NodeClient, spec: ModelSpec) -> str:
    """Load on a node with progress on stderr; ``loaded``, or as with `start`."""
    changed: list[str] = []
    try:
        with progress_on_stderr(spec.alias or spec.model_id) as report:
            for event in client.load(spec):
                changed = event.changed
                if event.stage:
                    report(Progress(event.stage, event.done_bytes or 0, event.total_bytes))
    except AlreadyLoaded:
        return ALREADY
    return _changed(changed) or "loaded"


def reference_for(url: str, text: str) -> str:
    """The reference as a node understands it: its working folder is another, so a local path is made absolute."""
    from pathlib import Path

    from neuron.node_url import is_loopback
    from neuron.sources.reference import parse_reference

    reference = parse_reference(text)
    if reference.scheme != "path" or not is_loopback(url):
        return text
    return str(Path(reference.name).expanduser().absolute())


def served_as(text: str) -> str:
    """The id under which a node serves what a reference names."""
    from neuron.sources.reference import model_id, parse_reference

    return model_id(parse_reference(text))


def _show(model: str, status: str, json: bool) -> None:
    from neuron.cli.render import show_json
    from neuron.cli.terminal_text import one_line

    if json:
        show_json({"model_id": model, "status": CHANGED if status == ONE_MORE_ID else status})
    else:
        print(f"{status}{' ' if status == ONE_MORE_ID else ': '}{one_line(model)}")
