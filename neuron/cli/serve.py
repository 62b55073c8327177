"""``neuron serve``: run a node in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLES = (
    "neuron serve",
    "neuron serve smollm2 --port 13132",
    "neuron serve ./model.gguf --model-root /srv/models --threads 4",
    "neuron serve --config /etc/neuron/neuron.toml",
)


def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Models to load at start.", show_default=False),
    ] = None,
    bind: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on [127.0.0.1].")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port to listen on; 0 takes a free one [13131].")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Allow an address beyond loopback although no keys are configured."),
    ] = False,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="How others reach this node [http://localhost:PORT].")
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host", metavar="NAME", help="A further name requests may call this node; repeat it."
        ),
    ] = None,
    model_roots: Annotated[
        list[str] | None,
        typer.Option(
            "--model-root", metavar="FOLDER", help="Let paths in this folder be loaded over HTTP; repeat it."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N [auto].")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="auto, float32, bfloat16 or float16 [auto].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of the CPU kernels [all cores].")
    ] = None,
    context: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="Upper bound on every model's context [the model's].")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error [info].")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="text, json, or auto: text on a terminal [auto].")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in TOML [neuron.toml in ~/.config/neuron].")
    ] = None,
) -> None:
    """Run a node in the foreground until it is told to stop.

    Every option can also be said as NEURON_<NAME> in the environment or as a key of neuron.toml; the command line
    wins, then the environment. SIGTERM and Ctrl-C let running answers end; a second one ends at once.
    """
    said = {key: value for key, value in locals().items() if key != "config"}
    flags = {
        key: value for key, value in said.items() if not (value is None or value is False or value == [])
    }
    raise typer.Exit(_serve(flags, config))


def _serve(flags: dict[str, Any], config: Path | None) -> int:
    """Bind before anything heavy is imported: a wrong setting or a taken port shows at once."""
    from neuron import keys
    from neuron.daemon.server import bind, serve
    from neuron.settings import resolve

    settings = resolve(flags, os.environ, config)
    ring = keys.load(settings.keys_file, os.environ)
    return serve(settings, bind(settings, guarded=ring is not None), keys=ring)
