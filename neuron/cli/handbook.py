"""``docs/cli.md``, ``docs/json.md`` and the schemas: what the help says, as pages."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from neuron.cli.app import EXAMPLES, command_of, commands
from neuron.cli.exits import MEANINGS
from neuron.cli.json_output import LINES, OUTPUTS, schema

NOTE = "<!-- Written by `make docs` from the program. -->"


def handbook() -> str:
    """``docs/cli.md``."""
    from typer import Context

    parts = [NOTE, "# The command line", _exit_codes(), "## neuron", _summary(), _examples(EXAMPLES)]
    for words, module in commands():
        command = command_of(words)
        name = " ".join(("neuron", *words))
        parts += [f"## {name}", *_text(command.help), *_usage(command, Context(command, info_name=name))]
        parts += [*_json_link(words), _examples(module.EXAMPLES)]
    return "\n\n".join(parts) + "\n"


def _exit_codes() -> str:
    rows = "\n".join(f"| {code.value} | {text} |" for code, text in MEANINGS.items())
    return f"Every command ends with one of these codes.\n\n| exit | meaning |\n|---|---|\n{rows}"


def _summary() -> str:
    lines = (
        f"- [{' '.join(('neuron', *words))}](#{'-'.join(('neuron', *words))}): {_first(words)}"
        for words, _ in commands()
    )
    return "\n".join(lines)


def _first(words: tuple[str, ...]) -> str:
    return str(command_of(words).get_short_help_str(200))


def _text(text: str) -> list[str]:
    return [_plain(" ".join(part.split())) for part in inspect.cleandoc(text).split("\n\n")]


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing of its own."""
    return re.sub(r"([*_<>|\[\]])", r"\\\1", text)


def _usage(command: Any, context: Any) -> Iterator[str]:
    pieces = re.sub("[{}]", "", " ".join(command.collect_usage_pieces(context)))
    yield f"```text\n{context.command_path} {pieces}\n```"
    records = [p.get_help_record(context) for p in command.get_params(context)]
    lines = (f"- `{_name(term)}`: {_plain(' '.join(text.split()))}" for term, text in filter(None, records))
    yield "\n".join(lines)


def _name(term: str) -> str:
    return term.replace(" <str>", "").replace(" <list[str]>", "")


def _json_link(words: tuple[str, ...]) -> Iterator[str]:
    if words in OUTPUTS:
        yield f"What `--json` prints is in [json.md](json.md#{'-'.join(('neuron', *words))})."


def _examples(lines: tuple[str, ...]) -> str:
    return "```console\n" + "\n".join(f"$ {line}" for line in lines) + "\n```"


# ---- JSON --------------------------------------------------------------------------------------------------------


def json_page() -> str:
    """``docs/json.md``."""
    head = (
        "What `--json` prints, for programs. Fields may be added, none goes or changes its meaning within a major "
        "version. `[]` is a list, `?` a field that may be absent. The same as JSON Schema, for validators: "
        "[cli.schema.json](cli.schema.json). A command that fails prints its error on stderr, as without `--json`."
    )
    parts = [NOTE, "# JSON output", head]
    for words, output in OUTPUTS.items():
        each = "A document a line." if words in LINES else ""
        fields = "\n".join(f"| `{path}` | {kind} |" for path, kind in _fields(output))
        parts += [
            f"## {' '.join(('neuron', *words))}",
            *([each] if each else []),
            f"| field | type |\n|---|---|\n{fields}",
        ]
    return "\n\n".join(parts) + "\n"


def schemas() -> str:
    """``docs/cli.schema.json``: command → JSON Schema of its output."""
    return json.dumps({" ".join(words): schema(output) for words, output in OUTPUTS.items()}, indent=1) + "\n"


def _fields(output: Any) -> Iterator[tuple[str, str]]:
    found = schema(output)
    yield from _walk(found, found.get("$defs", {}), "")


def _walk(part: dict[str, Any], defs: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Every field with its path and what it may be."""
    part = _resolved(part, defs)
    for choice in part.get("anyOf", ()):
        yield from _walk(choice, defs, path)
    if "items" in part:
        yield from _walk(part["items"], defs, f"{path}[]")
    for name, inner in part.get("properties", {}).items():
        optional = "" if name in part.get("required", ()) else "?"
        below = f"{path}.{name}" if path else name
        yield f"{below}{optional}", _kind(inner, defs)
        yield from _walk(inner, defs, below)


def _kind(part: dict[str, Any], defs: dict[str, Any]) -> str:
    part = _resolved(part, defs)
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_kind(choice, defs) for choice in part["anyOf"]))
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        return f"list of {_kind(part.get('items', {}), defs)}"
    return str(part.get("type", "any"))


def _resolved(part: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    return defs[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
