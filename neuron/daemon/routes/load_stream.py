"""A load as a stream of events: progress, then ``loaded`` or ``failed``."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

from neuron.daemon import errors, sse
from neuron.daemon.projection import node as projection
from neuron.engine.api import EngineApi
from neuron.errors import NeuronError
from neuron.wire.node import LoadProgress


def response(
    engine: EngineApi,
    model_id: str,
    task: asyncio.Task[tuple[str, ...]],
    request_id: str,
    headers: dict[str, str],
) -> sse.EventResponse:
    """The stream; the load goes on when its reader leaves."""
    events = _events(engine, model_id, task, request_id)
    return sse.EventResponse(sse.kept_alive(events, lambda: sse.PING), nullcontext(), headers)


async def _events(
    engine: EngineApi, model_id: str, task: asyncio.Task[tuple[str, ...]], request_id: str
) -> sse.Chunks:
    was_there = task.done() and task.exception() is None and task.result()
    if not was_there:  # otherwise the progress is that of an earlier load
        async for progress in engine.load_progress(model_id):
            yield sse.data(projection.progress(progress))
    yield sse.data(await _end(task, request_id))


async def _end(task: asyncio.Task[tuple[str, ...]], request_id: str) -> LoadProgress:
    try:
        changed = await asyncio.shield(task)
    except NeuronError as error:
        body = errors.node_body(error, request_id)
        return LoadProgress(status="failed", error=body["error"], code=error.code, hint=body.get("hint"))
    return LoadProgress(status="loaded", changed=list(changed))
