"""The table of limits in the words of JSON Schema, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuron.daemon.projection import limits, refusals
from neuron.daemon.projection.anthropic_prompt import KINDS
from neuron.daemon.projection.limits import LIMITS, Limit
from neuron.daemon.projection.load import DTYPES, HARNESSES, QUANTS
from neuron.daemon.projection.messages import ROLES
from neuron.daemon.projection.tools import MAX_TOOLS, NAME

Schema = Mapping[str, Any]

_STOP = {"minLength": 1, "maxLength": limits.MAX_STOP_BYTES}
_TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}, {"type": "null"}]}
_MESSAGE = {
    "type": "object",
    "properties": {"role": {"enum": list(ROLES)}, "content": _CONTENT},
    "required": ["role"],
}
_BLOCK = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
_TURN = {
    "type": "object",
    "properties": {
        "role": {"enum": list(KINDS)},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _BLOCK}, {"type": "null"}]},
    },
    "required": ["role"],
}
_FUNCTION = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": f"^{NAME.pattern}$"}},
    "required": ["name"],
}
_TOOL = {
    "type": "object",
    "properties": {"type": {"const": "function"}, "function": _FUNCTION},
    "required": ["type", "function"],
}
_NOT_EMPTY = {"string": {"minLength": 1}}

FIELDS: Mapping[str, Mapping[str, Schema]] = {
    "stop": {"string": _STOP, "array": {"maxItems": limits.MAX_STOPS, "items": {"type": "string", **_STOP}}},
    "stop_token_ids": {"array": {"maxItems": limits.MAX_STOP_IDS}},
    "logit_bias": {
        "object": {"maxProperties": limits.MAX_BIASED_IDS, "propertyNames": {"pattern": "^[0-9]{1,10}$"}}
    },
    "messages": {"array": {"minItems": 1, "items": _MESSAGE}},
    "tools": {"array": {"maxItems": MAX_TOOLS, "items": _TOOL}},
    "guided_regex": _NOT_EMPTY,
    "guided_grammar": _NOT_EMPTY,
    "MessagesRequest.messages": {"array": {"minItems": 1, "items": _TURN}},
    "MessagesRequest.tools": {"array": {"maxItems": MAX_TOOLS}},
    "CountTokensRequest.messages": {"array": {"minItems": 1, "items": _TURN}},
    "CountTokensRequest.tools": {"array": {"maxItems": MAX_TOOLS}},
    "ResponsesRequest.tools": {"array": {"maxItems": MAX_TOOLS, "items": _BLOCK}},
    "DrainRequest.timeout_s": {"number": {"minimum": 0, "maximum": 86400}},
    "ModelSpec.harness": {"string": {"enum": list(HARNESSES)}},
    "ModelSpec.quant": {"string": {"enum": list(QUANTS)}},
    "ModelSpec.dtype": {"string": {"enum": list(DTYPES)}},
}
"""Field, or struct and field → JSON type → what holds for a value of that type, beyond a range of numbers."""

REFUSED: Mapping[str, Mapping[str, refusals.Neutral]] = {
    "ChatCompletionRequest": refusals.CHAT,
    "CompletionRequest": refusals.COMPLETIONS,
    "ResponsesRequest": refusals.RESPONSES,
    "MessagesRequest": refusals.MESSAGES,
}


def narrowed(struct: str, name: str, schema: Schema) -> dict[str, Any]:
    """The schema of field ``name`` of a request, with the bounds that are enforced."""
    neutral = REFUSED.get(struct, {}).get(name)
    if neutral is refusals.NEVER:
        return {"type": "null"}
    if isinstance(neutral, refusals.OneOf) and not schema:
        return {"enum": [None, *neutral.values]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [narrowed(struct, name, option) for option in schema["anyOf"]]}
    bounded = _bounded(schema, LIMITS[name]) if name in LIMITS else dict(schema)
    said = FIELDS.get(f"{struct}.{name}", FIELDS.get(name, {}))
    return {**bounded, **said.get(str(schema.get("type")), {})}


def _bounded(schema: Schema, limit: Limit) -> dict[str, Any]:
    """``schema`` with every number in it in the range; null stays null, "not said"."""
    if schema.get("type") in ("integer", "number"):
        return {**schema, **_range(limit)}
    inner = {
        key: schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)
    }
    return {**schema, **{key: _bounded(value, limit) for key, value in inner.items()}}


def _range(limit: Limit) -> dict[str, Any]:
    low = {"exclusiveMinimum" if limit.open_low else "minimum": limit.low, "maximum": limit.high}
    return {"anyOf": [{"const": 0}, low]} if limit.zero else low
