"""`NodeClient`: a node over HTTP. Wire types come back, or a `NeuronError`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from neuron.errors import AlreadyLoaded, NeuronError, NodeAnsweredError, NodeUnreachable, StreamCut
from neuron.node_url import http_base
from neuron.nodes import Place, place
from neuron.transport import TLS_HINT, http_client, is_no_name, no_answer, tls_failure
from neuron.wire.chat import ChatCompletionChunk, ChatCompletionRequest, CompletionUsage, StreamOptions
from neuron.wire.errors import without_hint
from neuron.wire.event_stream import ServerEvent, read_events
from neuron.wire.node import (
    DiscoveryResponse,
    DrainRequest,
    DrainResponse,
    EndpointResponse,
    HealthResponse,
    LoadPlan,
    LoadProgress,
    ModelDescription,
    ModelInfo,
    ModelSpec,
    PlanRequest,
    ReadyResponse,
    RequestInfo,
    ShowRequest,
    StatusResponse,
    UnloadRequest,
    VersionResponse,
)
from neuron.wire.tokenize import TokenizeRequest, TokenizeResponse

T = TypeVar("T")
UNAUTHORIZED = 401
NAME_HINT = "look at the spelling; neuron nodes lists the names of nodes.toml"
START_HINT = "start one there: neuron serve; or name another: --host"
STALLED = 503
"""Status of ``/health`` when the decode loop makes no progress; the body is the same."""


@dataclass(frozen=True, slots=True)
class Health:
    """A health answer; the body doesn't say that the node is stalled, only the status does."""

    body: HealthResponse
    stalled: bool


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """What a chunk adds to the answer."""

    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ChatEnd:
    """The clean end of an answer; exactly one, last."""

    finish_reason: str
    usage: CompletionUsage | None = None


ChatPart = ChatDelta | ChatEnd


class NodeClient:
    """Speaks to one node. Not for use by several threads at once.

    Args:
        node: what `neuron.nodes.place` takes, or what it found; None is the local node.
        connect_s: seconds to wait for a connection.
        answer_s: seconds without a byte after which a short answer is given up.
        silence_s: the same for a stream, in which a node sends at least a comment every second.
    """

    def __init__(
        self,
        node: str | Place | None = None,
        *,
        connect_s: float = 3.0,
        answer_s: float = 30.0,
        silence_s: float = 60.0,
    ) -> None:
        self._place = node if isinstance(node, Place) else place(node)
        self.url = self._place.url
        self._base = http_base(self.url)
        self._stream_timeout = httpx.Timeout(silence_s, connect=connect_s)
        # A redirect is not followed, so the key goes to this node and nowhere else.
        self._http = http_client(
            self.url,
            timeout=httpx.Timeout(answer_s, connect=connect_s),
            headers={"Authorization": f"Bearer {self._place.key}"} if self._place.key else {},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def discovery(self) -> DiscoveryResponse:
        """The host as it is since the node's start."""
        return self._get("/discovery", DiscoveryResponse)

    def health(self) -> Health:
        """The node as it is now; a stalled one answers too."""
        with self._failures():
            response = self._http.get(self._base + "/health")
        stalled = response.status_code == STALLED
        return Health(self._body(response, HealthResponse, frozenset({200, STALLED})), stalled)

    def version(self) -> VersionResponse:
        """What the node runs."""
        return self._get("/version", VersionResponse)

    def models(self, *, all: bool = False) -> list[ModelInfo]:
        """Models that are loaded or loading; with ``all`` those that failed or leave as well."""
        return self._get("/models?all=true" if all else "/models", list[ModelInfo])

    def model(self, model_id: str) -> ModelInfo | None:
        """One model in any state, or None."""
        try:
            return self._get(f"/models/{quote(model_id, safe='')}", ModelInfo)
        except NodeAnsweredError as e:
            if e.details["status"] == 404:
                return None
            raise

    def requests(self, limit: int) -> list[RequestInfo]:
        """The last requests for text and vectors, newest first."""
        return self._get(f"/requests?limit={limit}", list[RequestInfo])

    def ready(self) -> bool:
        """Whether it takes new work."""
        with self._failures():
            response = self._http.get(self._base + "/ready")
        return self._body(response, ReadyResponse, frozenset({200, STALLED})).ready

    def drain(self, timeout_s: float | None) -> DrainResponse:
        """Have it end its work and leave."""
        return self._post("/drain", DrainRequest(timeout_s=timeout_s), DrainResponse)

    def events(self, since: int, follow: bool) -> Iterator[dict[str, Any]]:
        """What the node does, after number ``since``; with ``follow`` until it stops."""
        path = f"/events?since={since}&follow={str(follow).lower()}"
        for event in self._stream("GET", path):
            yield _decode(event.data.encode(), dict[str, Any], self.url)

    def request(self, request_id: str) -> RequestInfo:
        """One of them."""
        return self._get(f"/requests/{quote(request_id, safe='')}", RequestInfo)

    def endpoint(self, model_id: str) -> str:
        """The URL under which applications reach a loaded model."""
        return self._get(f"/models/{quote(model_id, safe='')}/endpoint", EndpointResponse).url

    def plan(self, request: PlanRequest) -> LoadPlan:
        """What a load would take, and whether it fits."""
        return self._post("/models/plan", request, LoadPlan)

    def describe(self, model_id: str) -> ModelDescription:
        """What a model that the node has loaded or fetched is."""
        return self._post("/models/show", ShowRequest(model_id=model_id), ModelDescription)

    def unload(self, model_id: str, *, now: bool = False) -> StatusResponse:
        """Free a model once its running work has ended, or cut it ``now``."""
        asked = UnloadRequest(model_id=model_id, now=now or None)
        return self._post("/models/unload", asked, StatusResponse)

    def start_load(self, spec: ModelSpec) -> StatusResponse:
        """Have a model loaded without waiting for it.

        Raises:
            AlreadyLoaded: it is in memory.
        """
        return self._post("/models/load", msgspec.structs.replace(spec, wait=False), StatusResponse)

    def load(self, spec: ModelSpec) -> Iterator[LoadProgress]:
        """Load a model; yields its progress and ends when it is in memory. A load goes on if this is left early.

        Raises:
            AlreadyLoaded: it is in memory.
        """
        for event in self._events("/models/load", spec):
            progress = _decode(event.data.encode(), LoadProgress, self.url)
            if progress.status == "failed":
                said = {"error": progress.error, "code": progress.code, "hint": progress.hint}
                raise _answered(400, said, self.url)
            yield progress
            if progress.status == "loaded":
                return
        raise self._cut()

    def chat(self, request: ChatCompletionRequest) -> Generator[ChatPart, None, None]:
        """An answer as it is made, up to a `ChatEnd` or an error; closing the iterator stops it on the node."""
        asked = msgspec.structs.replace(
            request, stream=True, stream_options=StreamOptions(include_usage=True)
        )
        finish_reason: str | None = None
        usage: CompletionUsage | None = None
        for event in self._events("/v1/chat/completions", asked):
            if event.data == "[DONE]":
                break
            chunk = self._chunk(event)
            usage = chunk.usage or usage
            for choice in chunk.choices:
                finish_reason = choice.finish_reason or finish_reason
                if choice.delta.content or choice.delta.reasoning_content:
                    yield ChatDelta(choice.delta.content or "", choice.delta.reasoning_content or "")
        else:
            raise self._cut()
        if finish_reason is None:
            raise self._cut()
        yield ChatEnd(finish_reason, usage)

    def tokenize(self, request: TokenizeRequest) -> TokenizeResponse:
        """The tokens of a text or of a conversation, and how many the model takes."""
        return self._post("/tokenize", request, TokenizeResponse)

    def _chunk(self, event: ServerEvent) -> ChatCompletionChunk:
        raw = event.data.encode()
        body = _decode(raw, dict[str, Any], self.url)
        if "error" in body:
            raise _answered(200, body, self.url)
        return _decode(raw, ChatCompletionChunk, self.url)

    def _get(self, path: str, kind: type[T]) -> T:
        with self._failures():
            response = self._http.get(self._base + path)
        return self._body(response, kind, frozenset({200}))

    def _post(self, path: str, body: msgspec.Struct, kind: type[T]) -> T:
        with self._failures():
            response = self._http.post(self._base + path, content=msgspec.json.encode(body), headers=_JSON)
        return self._body(response, kind, frozenset({200, 202}))

    def _body(self, response: httpx.Response, kind: type[T], statuses: frozenset[int]) -> T:
        if response.status_code not in statuses:
            raise self._refused(response.status_code, response.content)
        return _decode(response.content, kind, self.url)

    def _events(self, path: str, body: msgspec.Struct) -> Iterator[ServerEvent]:
        """POST and read the answer as a stream of events."""
        return self._stream("POST", path, msgspec.json.encode(body))

    def _stream(self, method: str, path: str, content: bytes | None = None) -> Iterator[ServerEvent]:
        headers = {**_JSON, "Accept": "text/event-stream"}
        with self._failures():
            request = self._http.build_request(
                method, self._base + path, content=content, headers=headers, timeout=self._stream_timeout
            )
            response = self._http.send(request, stream=True)
        try:
            with self._failures(streaming=True):
                if response.status_code != 200:
                    raise self._refused(response.status_code, response.read())
                yield from read_events(response.iter_bytes())
        finally:
            response.close()

    def _refused(self, status: int, raw: bytes) -> NeuronError:
        """The error of an answer; one for want of a key says where to put it."""
        error = _answered(status, _error_body(raw), self.url)
        if status == UNAUTHORIZED:
            at = self._place.key_from
            error.hint = f"the key is from {at}" if self._place.key else f"set {at} to a key of that node"
        return error

    @contextmanager
    def _failures(self, streaming: bool = False) -> Iterator[None]:
        """What httpx raises, as errors of ours."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as e:
            if reason := tls_failure(e):
                raise NodeUnreachable(f"no TLS with {self.url}: {reason}", hint=TLS_HINT) from e
            why, hint = (": its name has no address", NAME_HINT) if is_no_name(e) else ("", START_HINT)
            raise NodeUnreachable(
                f"no node answers at {self.url}{why}", hint=self._place.doubt or hint
            ) from e
        except httpx.HTTPError as e:
            if streaming:
                raise self._cut() from e
            raise no_answer(self.url, _reason(e)) from e

    def _cut(self) -> StreamCut:
        return StreamCut(
            f"the answer of {self.url} was cut off before its end", hint="look at the node's log"
        )


_JSON = {"Content-Type": "application/json"}


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__


def _decode(raw: bytes, kind: type[T], url: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise NodeAnsweredError(
            f"what {url} answers is not what a node says: {e}",
            hint="is something else listening there?",
            status=200,
            remote_code=None,
        ) from e


def _error_body(raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _answered(status: int, body: dict[str, Any], url: str) -> NeuronError:
    """The error in a body of either shape: ``{"error": "text"}`` or ``{"error": {"message" | "kind": …}}``."""
    error = body.get("error")
    said = error if isinstance(error, dict) else {"message": error}
    code = said.get("code") or said.get("kind") or body.get("code")
    message = said.get("message") or said.get("detail") or code or f"{url} answered with HTTP status {status}"
    if "already loaded" in str(message):
        return AlreadyLoaded(str(message))
    hint = said.get("suggestion") or body.get("hint")
    return NodeAnsweredError(
        without_hint(str(message), hint),
        hint=hint,
        param=said.get("param"),
        status=status,
        remote_code=code,
    )
