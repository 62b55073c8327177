"""``GET /metrics``: what is counted of requests, for Prometheus. Their names are documented in docs/operations.md.

Every application counts for itself, in a registry of its own.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from neuron.daemon.record import Record

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each counter that says when it began, which nothing reads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WORK_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/v1/embeddings"}
)
OTHER_PATHS = "other"
"""Instead of a path that a client made up, which would be a series of its own."""

TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2.5)
PHASE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
MODEL = ("model",)
KIND = ("model", "kind")
HISTOGRAMS = {
    "total": ("request_seconds", "From the arrival of an admitted request to its end", KIND),
    "read": ("request_read_seconds", "From the arrival of a request to the end of its body", KIND),
    "load": ("request_load_seconds", "Waiting until the model is in memory", KIND),
    "prepare": ("request_prepare_seconds", "Rendering, tokenising, compiling a grammar", KIND),
    "queue": ("request_queue_seconds", "Waiting for a place and for the device", KIND),
    "prefill": (
        "request_prefill_seconds",
        "From the device's begin to the first token, or the vectors",
        KIND,
    ),
    "decode": ("request_decode_seconds", "From the first token to the last", MODEL),
    "deliver": ("request_deliver_seconds", "From the last token, or the vectors, to the last byte", KIND),
    "first_token": ("time_to_first_token_seconds", "From the arrival of a request to its first token", MODEL),
}


class Metrics:
    """Counters and histograms of requests: an `neuron.daemon.record.Observer`. Used on the event loop only."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._admitted = self._counter(
            "requests_admitted", "Requests that had a place or waited for one", KIND
        )
        self._ended = self._counter(
            "requests_ended", "Admitted requests by how they ended", (*KIND, "outcome", "reason")
        )
        self._refused = self._counter(
            "requests_refused", "Requests that never were admitted", ("path", "code")
        )
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts", MODEL)
        self._cached = self._counter("prompt_tokens_cached", "Those whose cache was there already", MODEL)
        self._generated = self._counter("generated_tokens", "Tokens of answers", MODEL)
        self._drafted = self._counter("draft_tokens", "Tokens guessed ahead and checked", MODEL)
        self._right = self._counter("draft_tokens_accepted", "Those that became part of an answer", MODEL)
        self._gap = self._histogram(
            "inter_token_seconds", "Between two tokens of an answer", MODEL, TOKEN_BUCKETS_S
        )
        self._seconds = {
            key: self._histogram(name, text, labels, PHASE_BUCKETS_S)
            for key, (name, text, labels) in HISTOGRAMS.items()
        }

    def text(self) -> bytes:
        """Everything now, in the text format of version 0.0.4."""
        return generate_latest(self.registry)

    # ---- told by records

    def admitted(self, record: Record) -> None:
        """A request has a place or waits for one."""
        self._admitted.labels(*_kind(record)).inc()

    def generated(self, record: Record, n_tokens: int, gap_s: float | None) -> None:
        """Tokens of an answer; ``gap_s`` after the one before each of them, None for the first."""
        self._generated.labels(*_model(record)).inc(n_tokens)
        if gap_s is not None:
            observed = self._gap.labels(*_model(record))
            for _ in range(n_tokens):
                observed.observe(gap_s)

    def ended(self, record: Record) -> None:
        """A request ended."""
        if not record.admitted:
            self.refused(record.path, record.finish)
            return
        self._ended.labels(*_kind(record), record.state, record.finish).inc()
        self._prompt.labels(*_model(record)).inc(record.prompt_tokens or 0)
        self._cached.labels(*_model(record)).inc(record.used(lambda usage: usage.cached_tokens) or 0)
        self._drafted.labels(*_model(record)).inc(record.used(lambda usage: usage.drafted_tokens))
        self._right.labels(*_model(record)).inc(record.used(lambda usage: usage.drafted_right_tokens))
        self._observe_times(record)

    def refused(self, path: str, code: str) -> None:
        """A request was answered with an error before it was admitted, or its client left."""
        self._refused.labels(path if path in WORK_PATHS else OTHER_PATHS, code).inc()

    def _observe_times(self, record: Record) -> None:
        """The phases that were reached: what they took adds up to the whole."""
        marks, phases_ms = record.marks, record.marks.phases_ms()
        reached = {"read", "load", "prepare", "queue"}
        reached |= {"prefill"} if marks.started_s else set()
        reached |= {"deliver"} if marks.done_s else set()
        for name in reached:
            self._seconds[name].labels(*_kind(record)).observe(phases_ms[name] / 1e3)
        self._seconds["total"].labels(*_kind(record)).observe(marks.total_ms() / 1e3)
        if marks.computed_s or marks.first_token_s:
            self._seconds["decode"].labels(*_model(record)).observe(phases_ms["decode"] / 1e3)
        if first_token_ms := marks.first_token_ms():
            self._seconds["first_token"].labels(*_model(record)).observe(first_token_ms / 1e3)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, namespace="neuron", registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets_s: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, text, labels, namespace="neuron", registry=self.registry, buckets=buckets_s)


def _model(record: Record) -> tuple[str]:
    return (record.model or "",)


def _kind(record: Record) -> tuple[str, str]:
    return (record.model or "", record.kind)
