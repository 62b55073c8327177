"""``neuron show``: what a model is, here or on a node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli import completing
from neuron.cli.context import JsonOption, ModelArgument, node
from neuron.errors import TemplateRenderFailed, UsageError

if TYPE_CHECKING:
    from neuron.wire.node import ModelDescription

EXAMPLES = (
    "neuron show smollm2",
    "neuron show smollm2 --template",
    "neuron show smollm2 --host gpu1 --json",
)
TEMPLATE_CHARS = 60
SHA_CHARS = 12
KEPT_AS = {
    **{name: name for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")},
    "F64": "F32",
    "Q4_K": "Q4_1",
}
OTHERS = "Q8_0"
"""What a decoder's kernels keep a stored type in, and the rest (`neuron.model.packed.format_of`)."""


def run(
    model: ModelArgument,
    template: Annotated[
        bool, typer.Option("--template", help="The whole chat template and nothing else.")
    ] = False,
    hash: Annotated[
        bool, typer.Option("--hash", help="Hash the files of a folder or file that was not fetched.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|HOST[:PORT]|URL",
            help="A node to ask; without it this machine is looked at.",
            autocompletion=completing.nodes,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a model is: architecture, size, context, template, special tokens, licence, files.

    A folder, a .gguf file or a fetched model of this machine, which needs no node; with --host one that a node has
    loaded, by its id, or has fetched. NEURON_HOST has no part in this.
    """
    from neuron.cli.render import show_json

    if template and json:
        raise UsageError("--template prints text, and --json has the template already")
    found = _local(model, hash) if host is None else _remote(host, model, hash)
    if json:
        show_json(found)
    elif template:
        _show_template(found)
    else:
        _show(found)


def _local(model: str, hash: bool) -> ModelDescription:
    import msgspec

    from neuron.errors import NotFetched
    from neuron.sources import describe
    from neuron.wire.node import ModelDescription

    try:
        found = describe.local(model, hashes=hash)
    except NotFetched as e:
        if Path(model).exists():
            e.hint = f"a path begins with ./, also one of this folder: neuron show ./{model}"
        raise
    return msgspec.convert(found, ModelDescription, from_attributes=True)


def _remote(host: str, model: str, hash: bool) -> ModelDescription:
    if hash:
        raise UsageError("--hash reads files of this machine; leave out --host")
    with node(host) as client:
        return client.describe(model)


def _show_template(found: ModelDescription) -> None:
    from neuron.cli.terminal_text import clean

    if found.chat_template is None:
        raise TemplateRenderFailed(f"{found.model} has no chat template", hint="it takes plain prompts")
    print(clean(found.chat_template))


def _show(found: ModelDescription) -> None:
    from neuron.cli.render import show_fields, show_table

    show_fields(_fields(found))
    show_table(
        ("FILE", "SIZE", "SHA-256"),
        [(f.name, f"{f.size_bytes:,}", (f.sha256 or "-")[:SHA_CHARS]) for f in found.files],
    )


def _fields(found: ModelDescription) -> list[tuple[str, object]]:
    shape = {"layers": found.layers, "hidden size": found.hidden_size, "vocabulary": found.vocabulary}
    return [
        ("model", found.model),
        ("path", found.path),
        *([("source", f"{found.source} at {found.revision}")] if found.source else []),
        ("architecture", found.architecture or "not said"),
        ("parameters", f"{found.parameters:,}"),
        ("stored as", _stored(found.types) or "nothing"),
        ("context", "not said" if found.context is None else f"{found.context:,} tokens"),
        *((name, f"{value:,}") for name, value in shape.items() if value is not None),
        *((f"{name} token", token) for name, token in found.special_tokens.items()),
        ("chat template", _first_line(found.chat_template)),
        ("licence", found.licence or "not said in the files"),
    ]


def _stored(types: Mapping[str, int]) -> str:
    """Each type with what it is kept in; vectors, which are less than a hundredth, are left out."""
    total = sum(types.values())
    shares = {name: n / total for name, n in types.items() if n >= 0.01 * total}
    return ", ".join(
        f"{name}{f' ({share:.0%})' if len(shares) > 1 else ''}{_kept_as(name)}"
        for name, share in shares.items()
    )


def _kept_as(name: str) -> str:
    kept = KEPT_AS.get(name, OTHERS)
    return "" if kept == name else f" kept as {kept}"


def _first_line(template: str | None) -> str:
    if template is None:
        return "none"
    line = template.strip().splitlines()[0] if template.strip() else ""
    return f"{line[:TEMPLATE_CHARS]}… ({len(template):,} characters, --template shows them)"
