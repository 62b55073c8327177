"""Request bodies: read within limits, decoded strictly. Every fault of a client is a 4xx that names it."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import msgspec
from litestar import Request
from litestar.types import HTTPRequestEvent

from neuron.errors import InvalidValue, MalformedJson, RequestTooLarge, UnsupportedMediaType

NODE_BODY_BYTES = 64 << 10
DRAIN_BYTES = 32 << 20
DRAIN_S = 2.0
MAX_DEPTH = 64

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<key>key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")


class ClientGone(Exception):
    """The client closed its connection; nobody is there to answer."""


async def read(request: AnyRequest, shape: type[T], limit_bytes: int) -> tuple[T, list[str]]:
    """The body as ``shape``, and the names of its fields that ``shape`` does not know.

    Raises:
        UnsupportedMediaType, RequestTooLarge, MalformedJson, InvalidValue
        ClientGone: it left before the body was there.
    """
    _demand_json(request)
    return decoded(await _content(request, limit_bytes), shape)


def decoded(content: bytes, shape: type[T]) -> tuple[T, list[str]]:
    """The same of bytes."""
    known = shape.__struct_encode_fields__  # type: ignore[attr-defined]  # `msgspec.structs.fields` takes a millisecond
    with _without_collection():
        value = json_object(content)
        return typed(value, shape), [name for name in value if name not in known]


@contextmanager
def _without_collection() -> Iterator[None]:
    """The collector of cycles looks again and again at millions of objects that one large body makes: 8 MB of short
    lists then hold the event loop for more than a second, without it for a quarter of that."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _demand_json(request: AnyRequest) -> None:
    """A web page can send text/plain across sites without asking first, so only JSON declared as such passes."""
    media, _, _ = request.headers.get("content-type", "").partition(";")
    if media.strip().lower() != "application/json":
        raise UnsupportedMediaType(f"content-type must be application/json, not {media[:80]!r}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(f"content-encoding {encoding[:40]!r} is not supported, send plain JSON")


async def _content(request: AnyRequest, limit_bytes: int) -> bytes:
    """All bytes of the body, counted as they come, whatever ``Content-Length`` claims."""
    content = bytearray()
    more = True
    while more:
        part, more = await _part(request)
        content += part
        if len(content) > limit_bytes:
            await _drain(request, more)
            raise RequestTooLarge(f"the body is larger than {limit_bytes} bytes")
    return bytes(content)


async def _drain(request: AnyRequest, more: bool) -> None:
    """Take what is still coming, within bounds: a client that is cut while sending can't read the answer."""
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(DRAIN_S):
            while more and left > 0:
                part, more = await _part(request)
                left -= len(part)
    except TimeoutError:
        return


async def _part(request: AnyRequest) -> tuple[bytes, bool]:
    """The next bytes of the body, and whether more follow."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    request_part = cast("HTTPRequestEvent", message)
    return request_part["body"], request_part["more_body"]


def json_object(content: bytes) -> dict[str, Any]:
    """A JSON object; anything else is `MalformedJson` that says why."""
    try:
        value = msgspec.json.decode(content)
    except UnicodeDecodeError as e:
        raise MalformedJson(f"the body is not UTF-8: {e.reason} at byte {e.start}") from None
    except RecursionError:
        raise MalformedJson("the body is nested too deeply") from None
    except msgspec.DecodeError as e:
        reason = "a lone surrogate escape" if _SURROGATE.search(content) else str(e)
        raise MalformedJson(f"the body is not valid JSON: {reason}") from None
    if not isinstance(value, dict):
        raise MalformedJson(f"the body must be a JSON object, not {type(value).__name__}")
    if _deeper_than(value, MAX_DEPTH):
        raise MalformedJson(f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not layer:
            return False
    return True


def typed(value: dict[str, Any], shape: type[T]) -> T:
    """``value`` as ``shape``; `InvalidValue` with ``param`` where a field has the wrong type or is missing."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as e:
        message, param = _explain(str(e))
        raise InvalidValue(message, param=param) from None


def _explain(text: str) -> tuple[str, str | None]:
    """msgspec's sentence as a message and the path of the field."""
    match = _WHERE.match(text)
    path = (match["path"] or "").lstrip(".") if match else ""
    what = match["what"] if match else text
    if missing := _MISSING.search(what):
        param = f"{path}.{missing[1]}".lstrip(".")
        return f"missing required parameter: {param}", param
    return f"{path}: {what}" if path else what, path or None
