"""``GET /metrics``."""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon.metrics import CONTENT_TYPE
from neuron.daemon.node import Node


@get("/metrics")
async def metrics(node: NamedDependency[Node]) -> ASGIResponse:
    """Counters, gauges and histograms, for Prometheus."""
    return ASGIResponse(body=node.metrics.text(), headers={"content-type": CONTENT_TYPE})
