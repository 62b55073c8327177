"""What an error means over HTTP: one table from the class of a `NeuronError` to status, type and headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from neuron import errors as e
from neuron.wire.errors import ErrorObject

MAX_MESSAGE_CHARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How a class of errors is answered."""

    status: int
    type: str = "invalid_request_error"
    sibling_code: str | None = None
    """``code`` beside ``error``, where the original wire format has one."""
    retry_after_s: float | None = None
    """Default of the Retry-After header; None: no such header."""
    should_retry: bool | None = None
    """False where the same request fails again although the status (5xx) invites official clients to retry."""
    secret: bool = False
    """The message stays in the log; the client gets a fixed text."""


BAD_REQUEST = Row(status=400)
INTERNAL = Row(status=500, type="server_error", should_retry=False, secret=True)

TABLE: Mapping[type[e.NeuronError], Row] = {
    e.NeuronError: INTERNAL,
    e.InvalidValue: BAD_REQUEST,
    e.UnsupportedParameter: BAD_REQUEST,
    e.MalformedJson: BAD_REQUEST,
    e.UnsupportedMediaType: Row(status=415),
    e.RequestTooLarge: Row(status=413),
    e.ForbiddenHost: Row(status=403),
    e.InvalidApiKey: Row(status=401),
    e.InsufficientScope: Row(status=403),
    e.InvalidReference: BAD_REQUEST,
    e.UsageError: INTERNAL,
    e.KeyNotFound: INTERNAL,
    e.ConfigError: INTERNAL,
    e.ExposedSecret: INTERNAL,
    e.ModelNotLoaded: Row(status=404),
    e.AlreadyLoaded: BAD_REQUEST,
    e.LoadedDifferently: BAD_REQUEST,
    e.UnknownHarness: BAD_REQUEST,
    e.HarnessNotEnabled: Row(status=503, type="api_error", should_retry=False),
    e.CudaUnavailable: Row(status=503, type="api_error", should_retry=False),
    e.PreflightError: Row(status=422),
    e.RepoFetchFailed: Row(status=422),
    e.FilesDiffer: Row(status=422),
    e.NotFetched: Row(status=422),
    e.ModelInUse: INTERNAL,
    e.EmptyRepo: Row(status=422),
    e.UnsafeWeights: Row(status=422),
    e.UnsupportedArchitecture: Row(status=422),
    e.QuantNotFound: Row(status=422),
    e.InsufficientMemory: Row(status=422),
    e.InvalidModelFile: BAD_REQUEST,
    e.WeightMismatch: BAD_REQUEST,
    e.WeightsChanged: BAD_REQUEST,
    e.ModelUnloading: Row(status=503, type="api_error", retry_after_s=5),
    e.PromptTooLong: Row(status=400, sibling_code="prompt_too_long"),
    e.PromptNeverFits: Row(status=413),
    e.InsufficientCache: Row(status=503, type="api_error", sibling_code="insufficient_vram", retry_after_s=5),
    e.QueueFull: Row(status=503, type="rate_limit_error", retry_after_s=5),
    e.OverShare: Row(status=429, type="rate_limit_error", retry_after_s=5),
    e.ShuttingDown: Row(status=503, type="api_error", retry_after_s=15),
    e.RequestNotFound: Row(status=404),
    e.TemplateRenderFailed: Row(status=422),
    e.ChainedConversationNotSupported: Row(status=400, sibling_code="chained_conversation_not_supported"),
    e.PreviousResponseNotFound: Row(status=400, sibling_code="previous_response_not_found"),
    e.ResponseNotFound: Row(status=404),
    e.ResponseStoreFailed: Row(status=503, type="api_error", should_retry=False),
    e.NumericalError: Row(status=500, type="server_error", should_retry=False),
    e.DeviceFault: INTERNAL,
    e.NodeUnreachable: INTERNAL,
    e.NodeAnsweredError: INTERNAL,
    e.StreamCut: INTERNAL,
    e.SessionBusy: INTERNAL,
    e.SessionUnreadable: INTERNAL,
    e.AnswerUnusable: INTERNAL,
    e.AddressInUse: INTERNAL,
}


def row_of(error: e.NeuronError) -> Row:
    """The row of the error's class, or of the nearest class above it."""
    return next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)


def fixed_text(request_id: str) -> str:
    """What a client learns of a failure that is none of its business."""
    return f"internal error; the node's log has the cause under request id {request_id}"


def v1_body(error: e.NeuronError, request_id: str) -> dict[str, Any]:
    """The error object of `/v1`, with the sibling keys of the original wire format."""
    row = row_of(error)
    if row.secret:
        return envelope(fixed_text(request_id), row.type, None)
    siblings = {} if row.sibling_code is None else {"code": row.sibling_code}
    details = {k: v for k, v in error.details.items() if k not in ("retry_after_s", "error")}
    body = envelope(text_of(error), row.type, error.code, error.param)
    return {**body, **siblings, **hint_of(error), **details}


def envelope(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """``{"error": {…}}``."""
    return {"error": ErrorObject(message=message, type=kind, param=param, code=code)}


def node_body(error: e.NeuronError, request_id: str) -> dict[str, Any]:
    """The flat error of the node endpoints; an object with ``kind`` for a preflight refusal."""
    if row_of(error).secret:
        return {"error": fixed_text(request_id)}
    details = {k: v for k, v in error.details.items() if k not in ("retry_after_s", "error")}
    if isinstance(error, e.PreflightError):
        # what a library of others says of a fetch that failed is in our words already, and in the log
        told = text_of(error) if isinstance(error, e.RepoFetchFailed) else whole_cause(error)
        refusal = {"kind": error.code, "message": told, **details}
        return {"error": {**refusal, "suggestion": error.hint or "see the node's log"}}
    return {"error": whole_cause(error), "code": error.code, **hint_of(error), **details}


def hint_of(error: e.NeuronError) -> dict[str, str]:
    """The next step by itself, for clients that show it apart."""
    return {"hint": error.hint} if error.hint else {}


def text_of(error: e.NeuronError) -> str:
    """The message and its hint as one text."""
    return _bounded(f"{error.message}; {error.hint}" if error.hint else error.message)


def whole_cause(error: BaseException) -> str:
    """The message of an error and of everything that caused it, outermost first, each said once."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(texts) < 8:
        text = str(cause) or type(cause).__name__
        if not any(text in earlier for earlier in texts):
            texts.append(text)
        cause = cause.__cause__
    hint = getattr(error, "hint", None)
    return _bounded("; ".join([": ".join(texts), *([hint] if hint else [])]))


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}…"


def headers_of(error: e.NeuronError) -> dict[str, str]:
    """Retry-After (1-60 s), x-should-retry and how to say who one is, where the table has them."""
    row = row_of(error)
    headers = {"www-authenticate": "Bearer"} if row.status == 401 else {}
    wait_s = row.retry_after_s or error.details.get("retry_after_s")
    if wait_s is not None:
        headers["retry-after"] = str(_seconds(error.details.get("retry_after_s"), wait_s))
    if row.should_retry is not None:
        headers["x-should-retry"] = str(row.should_retry).lower()
    return headers


def _seconds(asked: Any, default: float) -> int:
    seconds = asked if isinstance(asked, (int, float)) and math.isfinite(asked) else default
    return min(60, max(1, math.ceil(seconds)))


def encoded(body: Any) -> bytes:
    """JSON bytes of wire values, also of the oddities that ``details`` may hold."""
    return msgspec.json.encode(body, enc_hook=str)


def framework_body(status: int, path: str, request_id: str) -> dict[str, Any]:
    """The body of an error that the framework found: no route, wrong method, a fault of ours."""
    if status >= 500:
        text, kind, code = fixed_text(request_id), "server_error", None
    else:
        phrase = HTTPStatus(status).phrase
        text, kind, code = phrase, "invalid_request_error", phrase.lower().replace(" ", "_")
    return envelope(text, kind, code) if is_v1(path) else {"error": text}


def is_v1(path: str) -> bool:
    """Whether errors under ``path`` have OpenAI's shape."""
    return path == "/v1" or path.startswith("/v1/")
