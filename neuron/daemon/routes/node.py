"""The node itself: discovery, health, version, ready."""

from __future__ import annotations

import platform
from importlib.metadata import version

from litestar import get
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import openapi, respond
from neuron.daemon.node import Node
from neuron.daemon.projection import node as projection
from neuron.wire.node import ReadyResponse, VersionResponse

FEATURES = [
    "chat_completions",
    "responses",
    "completions",
    "messages",
    "embeddings",
    "tokenize",
    "streaming",
    "continuous_batching",
    "load_progress",
    "metrics",
    "events",
    "requests",
    "drain",
]


@get("/discovery")
async def discovery(node: NamedDependency[Node]) -> ASGIResponse:
    """What is fixed since start."""
    return respond.json(projection.discovery(node.host, node.settings))


@get("/health")
async def health(node: NamedDependency[Node]) -> ASGIResponse:
    """What changes, from memory; 503 with the same body once the decode loop is stalled."""
    snapshot = node.engine.status()
    answer = projection.health(
        snapshot, node.readings.gpus, node.readings.cpu, projection.uptime_s(node.began_s)
    )
    return respond.json(answer, status=503 if snapshot.decode.stalled else 200)


@get("/version")
async def version_(node: NamedDependency[Node]) -> ASGIResponse:
    """What runs here; torch's version without importing it."""
    answer = VersionResponse(
        package_version=version("neuron-node"),
        python=platform.python_version(),
        torch=version("torch"),
        platform=f"{node.host.os} {node.host.kernel} {platform.machine()}",
        features=FEATURES,
    )
    return respond.json(answer)


@get("/ready")
async def ready(node: NamedDependency[Node]) -> ASGIResponse:
    """200 while new work is accepted."""
    decode = node.engine.status().decode
    accepting = decode.accepting and not decode.stalled
    return respond.json(ReadyResponse(ready=accepting), status=200 if accepting else 503)


@get("/schema/openapi.json")
async def openapi_document() -> ASGIResponse:
    """Every route, status and error, for tools."""
    return ASGIResponse(body=openapi.document(), media_type="application/json")
