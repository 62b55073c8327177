"""Which shape an error has is said by the path: the node's, OpenAI's, or Anthropic's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from neuron import errors as e
from neuron.daemon import errors
from neuron.wire.errors import ErrorBody, NodeErrorBody
from neuron.wire.messages import MessagesErrorBody, MessagesErrorObject

ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
OVERLOADED = 529
"""Anthropic's status of a server that will take the request later."""
PHRASES: Mapping[int, str] = {**{s.value: s.phrase for s in HTTPStatus}, OVERLOADED: "Overloaded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a public format tells of errors."""

    type: type
    """Of the body, for the OpenAPI document."""
    status: Callable[[e.NeuronError], int]
    body: Callable[[e.NeuronError, str], Any]
    """From an error and the request's id."""
    framework: Callable[[int, str], Any]
    """From a status that the framework found (no route, wrong method, a fault of ours) and the request's id."""


def of(path: str) -> Shape:
    """The shape of errors under ``path``."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return ANTHROPIC
    return OPENAI if errors.is_v1(path) else FLAT


def _status(error: e.NeuronError) -> int:
    return errors.row_of(error).status


def _anthropic_status(error: e.NeuronError) -> int:
    row = errors.row_of(error)
    if row.retry_after_s is not None and row.status >= 500:
        return OVERLOADED
    return 400 if row.status == 422 else row.status


def _anthropic_body(error: e.NeuronError, request_id: str) -> MessagesErrorBody:
    secret = errors.row_of(error).secret
    text = errors.fixed_text(request_id) if secret else errors.text_of(error)
    if isinstance(error, e.PromptTooLong) and "prompt_len" in error.details:
        # Agents look for these words to know that they must shorten the conversation.
        n_tokens, most = error.details["prompt_len"], error.details.get("max")
        text = f"prompt is too long: {n_tokens} tokens > {most} maximum; {text}"
    return _anthropic(_anthropic_status(error), text, request_id)


def _anthropic_framework(status: int, request_id: str) -> MessagesErrorBody:
    text = errors.fixed_text(request_id) if status >= 500 else PHRASES[status]
    return _anthropic(status, text, request_id)


def _anthropic(status: int, text: str, request_id: str) -> MessagesErrorBody:
    kind = ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return MessagesErrorBody(error=MessagesErrorObject(type=kind, message=text), request_id=request_id)


FLAT = Shape(
    type=NodeErrorBody,
    status=_status,
    body=errors.node_body,
    framework=lambda status, request_id: errors.framework_body(status, "/", request_id),
)
OPENAI = Shape(
    type=ErrorBody,
    status=_status,
    body=errors.v1_body,
    framework=lambda status, request_id: errors.framework_body(status, "/v1", request_id),
)
ANTHROPIC = Shape(
    type=MessagesErrorBody, status=_anthropic_status, body=_anthropic_body, framework=_anthropic_framework
)
