"""Engine snapshots and hardware readings → the node endpoints' types."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields

import msgspec

from neuron.engine import status as engine
from neuron.engine.request import Sampling
from neuron.hardware import CpuReading, GpuReading, Host
from neuron.progress import Progress
from neuron.settings import Settings
from neuron.wire import models as wire_models
from neuron.wire import node as wire

MIB = 1 << 20
MAX_PROMPT_TOKENS = 1 << 20
"""Said where the node sets no bound of its own; each model's ``limit.context`` is what is enforced."""

LISTED = frozenset({"loading", "loaded"})
"""States in ``GET /models``: fleet software takes any word that it doesn't know for ``loaded``."""


def discovery(host: Host, settings: Settings) -> wire.DiscoveryResponse:
    """What is fixed since start."""
    return wire.DiscoveryResponse(
        hostname=host.hostname,
        os=host.os,
        kernel=host.kernel,
        cuda_version=host.cuda_version,
        driver_version=host.driver_version,
        devices=[msgspec.convert(gpu, wire.GpuInfo, from_attributes=True) for gpu in host.gpus],
        harnesses=list(settings.harnesses),
        max_prompt_tokens=settings.context or MAX_PROMPT_TOKENS,
        cpu=msgspec.convert(host.cpu, wire.CpuInfo, from_attributes=True),
        cuda_unavailable_reason=host.cuda_unavailable_reason or msgspec.UNSET,
    )


def health(
    snapshot: engine.EngineStatus, gpus: Sequence[GpuReading], cpu: CpuReading, uptime_s: float
) -> wire.HealthResponse:
    """What changes."""
    return wire.HealthResponse(
        uptime_secs=int(uptime_s),
        devices=[msgspec.convert(gpu, wire.DeviceHealth, from_attributes=True) for gpu in gpus],
        activation=activation(snapshot.activation),
        models=[
            model_load(model.id, model.load)
            for model in snapshot.models
            if model.load is not None and model.alias_of is None
        ],
        cpu=msgspec.convert(cpu, wire.CpuHealth, from_attributes=True),
        decode=wire.DecodeHealth(
            active=snapshot.decode.active, last_step_age_ms=snapshot.decode.last_step_age_ms
        ),
        accepting=snapshot.decode.accepting,
    )


def activation(snapshot: engine.Activation) -> wire.Activation:
    """Pre-warm."""
    return wire.Activation(
        state=snapshot.state,
        pending=list(snapshot.pending),
        in_progress=snapshot.in_progress,
        completed=list(snapshot.completed),
        failed=[wire.ActivationFailure(model_id=name, error=why) for name, why in snapshot.failed],
    )


def model_load(model_id: str, load: engine.LoadFigures) -> wire.ModelLoad:
    """How busy a model is."""
    return wire.ModelLoad(
        id=model_id,
        in_flight=load.in_flight,
        queue_depth=load.queue_depth,
        max_in_flight=load.max_in_flight,
        max_queue_depth=load.max_queue_depth,
        rejected_queue_full=load.rejected_queue_full,
        rejected_timeout=load.rejected_timeout,
        kv_budget_mb=load.kv_budget_bytes // MIB,
        kv_available_mb=load.kv_free_bytes // MIB,
        tok_s_prefill=load.prefill_tok_s,
        tok_s_decode=load.decode_tok_s,
    )


def model_info(model: engine.ModelStatus) -> wire.ModelInfo:
    """One model, in any state."""
    info = wire.ModelInfo(
        id=model.id,
        harness=model.harness,
        status=model.state,
        devices=list(model.devices),
        vram_used_mb=None if model.weight_bytes is None else -(-model.weight_bytes // MIB),
        capabilities=["text"] if model.generates else ["embeddings"],
        limit=wire.Limit(context=model.context, output=model.context if model.generates else 0),
        tool_call=model.tool_call,
        reasoning=model.reasoning,
        source=model.source,
        quant=model.quant,
        dtype=model.dtype,
        weights=model.weights,
        device=model.device,
        idle_s=model.idle_s,
        ttl_s=model.ttl_s,
        pinned=model.pinned,
        alias_of=model.alias_of,
        sampling=None if model.sampling is None else recommended(model.sampling),
    )
    if model.load is not None:
        info.in_flight, info.queue_depth = model.load.in_flight, model.load.queue_depth
        info.tok_s_decode = model.load.decode_tok_s
    if model.error is not None:
        info.error = model.error
    if model.progress is not None:
        info.progress = progress(model.progress)
    return info


def recommended(sampling: Sampling) -> dict[str, int | float]:
    """What of it is said."""
    return {
        f.name: value for f in fields(sampling) if isinstance(value := getattr(sampling, f.name), int | float)
    }


def progress(value: Progress) -> wire.LoadProgress:
    """How far a load is."""
    return wire.LoadProgress(
        status="loading",
        stage=value.stage,
        done_bytes=value.done_bytes,
        total_bytes=value.total_bytes,
        note=value.note,
    )


def v1_model(model: engine.ModelStatus) -> wire_models.Model:
    """One loaded model in OpenAI's shape."""
    return wire_models.Model(
        id=model.id, created=model.loaded_at_s, max_model_len=model.context, context_length=model.context
    )


def uptime_s(began_s: float) -> float:
    """Seconds since ``began_s`` of the monotonic clock."""
    return time.monotonic() - began_s
