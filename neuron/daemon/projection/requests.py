"""Records of requests → what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuron.daemon.record import Record
from neuron.wire.node import RequestInfo


def request_info(record: Record) -> RequestInfo:
    """One request, running or ended."""
    state = record.state
    return RequestInfo(
        id=record.request_id,
        path=record.path,
        state=state,
        arrived=round(record.arrived_at_s, 3),
        **_times(record),
        stream=record.stream,
        model=record.model,
        principal=record.principal,
        n_prompts=record.n_prompts,
        finish_reason=record.finish if state == "finished" else None,
        code=record.finish if state in ("failed", "refused") else None,
        param=record.param,
        cause=record.cause,
        parameters=record.parameters,
        **_tokens(record),
        **_texts(record),
    )


def _times(record: Record) -> dict[str, Any]:
    phases = {f"{name}_ms": ms for name, ms in record.marks.phases_ms().items()}
    found = {**phases, "total_ms": sum(phases.values()), "first_token_ms": record.marks.first_token_ms()}
    return {name: None if ms is None else round(ms, 3) for name, ms in found.items()}


def _tokens(record: Record) -> dict[str, Any]:
    if record.kind == "embeddings":
        return {"prompt_tokens": record.prompt_tokens}
    speed = record.tokens_per_s
    return {
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.used(lambda usage: usage.cached_tokens),
        "completion_tokens": record.completion_tokens,
        "reasoning_tokens": record.used(lambda usage: usage.reasoning_tokens),
        "drafted_tokens": record.used(lambda usage: usage.drafted_tokens),
        "drafted_right_tokens": record.used(lambda usage: usage.drafted_right_tokens),
        "tokens_per_s": None if speed is None else round(speed, 2),
    }


def _texts(record: Record) -> dict[str, Any]:
    said = record.transcript
    if said is None:
        return {}
    return {
        "prompts": said.prompts,
        "answers": _in_order(said.answers),
        "reasoning": _in_order(said.reasoning),
    }


def _in_order(texts: Mapping[int, str]) -> list[str]:
    return [texts[index] for index in sorted(texts)]
