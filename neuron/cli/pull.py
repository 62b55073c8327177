"""``neuron pull``: fetch a model to this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from neuron.cli.context import JsonOption, ModelArgument
from neuron.cli.progress import progress_on_stderr

EXAMPLES = (
    "neuron pull smollm2",
    "neuron pull hf:Qwen/Qwen3-0.6B@main",
    "neuron pull smollm2 --verify --json",
)


def run(
    model: ModelArgument,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Hash the files of a fetched model again; fails (1) if any differs, or none is there.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fetch a model to this machine and print where it is.

    Needs no node. A model that was fetched before is not fetched again.
    """
    from neuron.cli.render import show_json
    from neuron.sources import fetch as sources

    if verify and not sources.was_fetched(model):
        raise sources.not_fetched(model, "without --verify it is fetched, and what was fetched is hashed")
    with progress_on_stderr(model) as report:
        path = sources.verify(model, report).path if verify else sources.fetch(model, report)
    if json:
        show_json({"model": model, "path": str(path), "verified": verify})
    else:
        print(path)
