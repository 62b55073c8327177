"""`Server`: one streamed answer with the time of each piece.

Servers of others are read too, so little is demanded of what comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from neuron.errors import NeuronError, NodeAnsweredError, NodeUnreachable, StreamCut
from neuron.node_url import UNIX
from neuron.transport import TLS_HINT, http_client, no_answer, tls_failure
from neuron.wire.errors import without_hint
from neuron.wire.event_stream import ServerEvent, read_events

CONNECT_S, SILENCE_S = 10.0, 300.0
"""Others send nothing while a request waits in their queue, so silence is given long."""
FORMS: tuple[dict[str, Any], ...] = (
    {"stream_options": {"include_usage": True}, "ignore_eos": True},
    {"stream_options": {"include_usage": True}},
    {},
)
"""What is asked for beyond the plain request; a server that refuses one with 400 or 422 is asked for the next."""
REFUSED = (400, 422)
NO_KEY = "set NEURON_API_KEY for a node, OPENAI_API_KEY for a server that --url names"


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None
    error: Any = None
    hint: Any = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


@dataclass(slots=True)
class Answer:
    """A whole answer. ``arrived_s`` are the times of its pieces of text since the request was sent."""

    arrived_s: list[float] = field(default_factory=list)
    total_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """As the server counts them; None: it does not say."""

    @property
    def tokens(self) -> int:
        """Tokens of the answer; its pieces where the server does not count."""
        return len(self.arrived_s) if self.completion_tokens is None else self.completion_tokens


class Server:
    """A server by the URL under which ``/chat/completions`` lies. Several threads may ask at once.

    Args:
        uds: the Unix socket of a node, in place of ``base_url``.
        places: connections that are kept.
        doubt: what to say where nobody answers.
        clock: seconds.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        uds: str | None = None,
        key: str | None = None,
        places: int = 1,
        doubt: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.url = f"{UNIX}{uds}" if uds else (base_url or "").rstrip("/")
        self._base = "http://localhost/v1" if uds else self.url
        self._doubt = doubt or "is it running, and is that its URL?"
        self.form = FORMS[0]
        self.stopped = threading.Event()
        self._clock = clock
        limits = httpx.Limits(max_connections=places, max_keepalive_connections=places)
        self._http = http_client(
            self.url,
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=limits,
        )

    def models(self) -> list[str]:
        """Ids of what it serves.

        Raises:
            NeuronError: as `ask`.
        """
        with self._failures(streaming=False):
            response = self._http.get(f"{self._base}/models")
            if response.status_code != 200:
                raise _refusal(response)
        try:
            return [model.id for model in msgspec.json.decode(response.content, type=_Models).data]
        except msgspec.DecodeError as e:
            raise self._foreign(e) from e

    def settle(self, model: str, prompt: str) -> Answer:
        """A first answer of one token; keeps the richest form of a request that the server takes.

        Raises:
            NeuronError: as `ask`; the refusal of the plainest form.
        """
        for form in FORMS[FORMS.index(self.form) :]:
            self.form = form
            try:
                return self.ask(model, prompt, 1)
            except NodeAnsweredError as e:
                if e.details["status"] not in REFUSED or form is FORMS[-1]:
                    raise
        raise AssertionError("the last form ends the loop")

    def ask(self, model: str, prompt: str, max_tokens: int) -> Answer:
        """One greedy answer, timed.

        Raises:
            NodeUnreachable: nobody answers.
            NodeAnsweredError: an error before or within the stream, or something that is no answer.
            StreamCut: it did not end as it should, or was stopped.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": True,
            **self.form,
        }
        began_s, answer = self._clock(), Answer()
        with self._failures(streaming=True), self._post(body) as response:
            if response.status_code != 200:
                response.read()
                raise _refusal(response)
            self._read(read_events(response.iter_bytes()), answer, began_s)
        answer.total_s = self._clock() - began_s
        return answer

    @contextmanager
    def _post(self, body: dict[str, Any]) -> Iterator[httpx.Response]:
        with self._http.stream("POST", f"{self._base}/chat/completions", json=body) as response:
            yield response

    def _read(self, events: Iterator[ServerEvent], answer: Answer, began_s: float) -> None:
        finished = False
        for event in events:
            arrived_s = self._clock() - began_s
            if event.data == "[DONE]":
                break
            chunk = self._chunk(event.data)
            if chunk.usage:
                answer.prompt_tokens = chunk.usage.prompt_tokens
                answer.completion_tokens = chunk.usage.completion_tokens
            for choice in chunk.choices:
                finished = finished or choice.finish_reason is not None
                if choice.delta.content or choice.delta.reasoning_content or choice.delta.reasoning:
                    answer.arrived_s.append(arrived_s)
            if self.stopped.is_set():
                raise self._cut()
        if not finished:
            raise self._cut()

    def _chunk(self, data: str) -> _Chunk:
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except msgspec.DecodeError as e:
            raise self._foreign(e) from e
        if chunk.error:
            raise _answered(200, chunk.error, chunk.hint)
        return chunk

    @contextmanager
    def _failures(self, *, streaming: bool) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as e:
            if reason := tls_failure(e):
                raise NodeUnreachable(f"no TLS with {self.url}: {reason}", hint=TLS_HINT) from e
            raise NodeUnreachable(f"nobody answers at {self.url}", hint=self._doubt) from e
        except httpx.TimeoutException as e:
            raise NodeUnreachable(f"{self.url}: no answer in time") from e
        except httpx.HTTPError as e:
            if streaming:
                raise self._cut() from e
            raise no_answer(self.url, str(e)) from e

    def _cut(self) -> StreamCut:
        return StreamCut(f"the answer of {self.url} was cut off before its end")

    def _foreign(self, error: Exception) -> NodeAnsweredError:
        return NodeAnsweredError(
            f"what {self.url} answers is not in OpenAI's format: {error}",
            hint="the URL is the one under which /chat/completions lies, and mostly ends in /v1",
            status=200,
            remote_code="not_understood",
        )


def name_of(error: NeuronError) -> str:
    """What failures are counted by: ``503 rate_limit_exceeded``, ``429``, ``stream_cut``."""
    if not isinstance(error, NodeAnsweredError):
        return error.code
    status, code = error.details["status"], error.details["remote_code"]
    return " ".join(str(part) for part in (status if status != 200 else None, code) if part) or "error"


def _refusal(response: httpx.Response) -> NodeAnsweredError:
    try:
        body = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        body = None
    fields = body if isinstance(body, dict) else {}
    return _answered(response.status_code, fields.get("error", fields), fields.get("hint"))


def _answered(status: int, said: Any, hint: Any = None) -> NodeAnsweredError:
    """An error in any of the shapes that servers have: ``{"message", "code"}``, ``{"detail"}``, a text."""
    fields = said if isinstance(said, dict) else {"message": said}
    message = fields.get("message") or fields.get("detail") or f"HTTP status {status}"
    code = fields.get("code") or fields.get("type")
    hint = hint if isinstance(hint, str) else None
    return NodeAnsweredError(
        without_hint(str(message), hint),
        hint=NO_KEY if status == 401 else hint or fields.get("suggestion"),
        status=status,
        remote_code=code and str(code),
    )
