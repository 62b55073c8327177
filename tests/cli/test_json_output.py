"""What ``--json`` prints is what ``docs/json.md`` and the schemas say of it, for every command that has it."""

import json

import jsonschema
import pytest

from neuron.cli.app import command_of, commands
from neuron.cli.generate import ROOT
from neuron.cli.json_output import LINES, OUTPUTS
from tests.test_examples import REQUEST_ID, Sandbox, sandbox

__all__ = ["sandbox"]

TRIED = {
    ("load",): ("load assistant", "load another --no-wait", "load third", "load third --plan"),
    ("unload",): ("unload smollm2", "unload --all"),
    ("models",): ("models --all", "models --cached"),
    ("show",): ("show smollm2", "show smollm2 --host gpu1"),
    ("endpoint",): ("endpoint smollm2",),
    ("rm",): ("rm smollm2",),
    ("pull",): ("pull smollm2", "pull smollm2 --verify"),
    ("chat",): ("chat smollm2 hello", "chat --list"),
    ("health",): ("health",),
    ("drain",): ("drain",),
    ("explain",): ("explain", f"explain {REQUEST_ID}"),
    ("events",): ("events",),
    ("bench",): ("bench smollm2 --concurrency 2 --requests 3 --max-tokens 4",),
    ("doctor",): ("doctor",),
    ("discovery",): ("discovery",),
    ("nodes",): ("nodes",),
    ("version",): ("version",),
    ("config", "show"): ("config show",),
    ("keys", "add"): ("keys add bob",),
    ("keys", "list"): ("keys list",),
}
"""Command → lines that are run with ``--json``."""
SCHEMAS = json.loads((ROOT / "docs" / "cli.schema.json").read_text())


def strict(schema: object) -> object:
    """The schema without room for fields that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(part) for name, part in schema.items()}
    return {**closed, "additionalProperties": False} if "properties" in schema else closed


def test_every_command_with_json_is_documented_and_tried() -> None:
    with_json = {words for words, _ in commands() if any(p.name == "json" for p in command_of(words).params)}
    assert set(OUTPUTS) == with_json == set(TRIED)


@pytest.mark.parametrize(
    ("words", "line"), [(words, line) for words, lines in TRIED.items() for line in lines]
)
def test_what_is_printed_fits_its_schema(words: tuple[str, ...], line: str, sandbox: Sandbox) -> None:
    printed = sandbox.run(f"neuron {line} --json")
    schema = SCHEMAS[" ".join(words)]
    if words in LINES:
        for each in printed.splitlines():
            jsonschema.validate(json.loads(each), schema)
        assert printed
    else:
        jsonschema.validate(json.loads(printed), strict(schema))
