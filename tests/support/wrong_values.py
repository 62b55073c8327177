"""Values that a field can't have, made from its type: for requests that must be refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

VALUES: dict[str, Any] = {
    "a whole number": 1,
    "a fraction": 0.5,
    "a text": "x",
    "true": True,
    "a list": [],
    "an object": {},
    "a number of 65 bits": 2**64,
    "a list of nulls": [None],
}
"""One of each kind that JSON has."""
WORDS: dict[str, str] = {
    "NaN": "NaN",
    "infinity": "Infinity",
    "minus infinity": "-Infinity",
    "1e999": "1e999",
    "5000 digits": "9" * 5000,
    "hexadecimal": "0x10",
    "a leading zero": "01",
    "a bare word": "none",
}
"""What looks like a number and is none of JSON's, or of no size that anything has."""
DEEP = "[" * 100 + "]" * 100
LONE = '"\\ud800"'
SWAPPED = '"\\udc00\\ud800"'


class Wrong(NamedTuple):
    """A value for a field, as JSON, and what is wrong with it."""

    what: str
    text: str
    malformed: bool
    """No JSON that is taken at all, so the answer can't name the field."""


def wrong_values(struct: type, field: str) -> Iterator[Wrong]:
    """Everything above that the field's type doesn't take."""
    info = _type_of(struct, field)
    for what, value in VALUES.items():
        if not _takes(struct, field, value):
            yield Wrong(what, json.dumps(value), False)
    if is_number(struct, field):
        yield from (Wrong(what, word, True) for what, word in WORDS.items())
    if _has(info, inspect.StrType, inspect.LiteralType):
        yield from (Wrong("a lone surrogate", text, True) for text in (LONE, SWAPPED))
    yield Wrong("100 lists in lists", DEEP, True)
    yield Wrong("an unfinished text", '"x', True)
    yield Wrong("a control character", '"\x01"', True)


def is_number(struct: type, field: str) -> bool:
    """Whether the field's type has a number among what it takes."""
    return _has(_type_of(struct, field), inspect.IntType, inspect.FloatType)


def _takes(struct: type, field: str, value: Any) -> bool:
    kind = next(f.type for f in msgspec.structs.fields(struct) if f.name == field)
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _type_of(struct: type, field: str) -> inspect.Type:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return next(f.type for f in info.fields if f.name == field)


def _has(info: inspect.Type, *kinds: type[inspect.Type]) -> bool:
    if isinstance(info, inspect.UnionType):
        return any(_has(part, *kinds) for part in info.types)
    return isinstance(info, kinds)


def with_value(base: dict[str, Any], field: str, text: str) -> bytes:
    """A body with the value as it is written."""
    others = {key: value for key, value in base.items() if key != field}
    said = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in others.items()]
    return ("{" + ",".join([*said, f"{json.dumps(field)}:{text}"]) + "}").encode()
