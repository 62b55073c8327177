"""``POST /models/load``: wire → `LoadSpec`. What this build can't honour is refused, never ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from neuron.engine.api import Fetch, Find
from neuron.engine.plan import LoadPlan
from neuron.engine.request import LoadSpec
from neuron.errors import (
    ConfigError,
    CudaUnavailable,
    InvalidValue,
    QuantNotFound,
    UnknownHarness,
    UnsupportedParameter,
)
from neuron.files import Headers
from neuron.hardware import Host
from neuron.progress import Report
from neuron.settings import Settings
from neuron.sources.reference import model_id, parse_reference
from neuron.wire import node as wire
from neuron.wire.node import ModelSpec

HARNESSES: Mapping[str, str] = {"torch": "torch", "candle": "torch"}
"""Names on the wire → harness. Gateways in the field say ``candle`` for the one that there is."""

QUANTS = ("int8", "int4")
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
MIB = 1 << 20
MAX_TTL_S = 86400.0 * 365


def load_spec(spec: ModelSpec, host: Host) -> LoadSpec:
    """What the engine is asked for.

    Raises:
        InvalidReference, InvalidValue, UnsupportedParameter, UnknownHarness, QuantNotFound, CudaUnavailable
    """
    from neuron.sources.fetch import origins

    served_as = model_id(parse_reference(spec.model_id))
    if spec.harness not in HARNESSES:
        raise UnknownHarness(f"unknown harness: {spec.harness}", hint="this build has: torch")
    if spec.alias is not None and not (spec.alias and spec.alias.isprintable() and len(spec.alias) <= 256):
        raise InvalidValue("alias must be 1 to 256 printable characters", param="alias")
    _refuse_unsupported(spec)
    return LoadSpec(
        model_id=spec.alias or served_as,
        harness=HARNESSES[spec.harness],
        dtype=_dtype(spec.dtype),
        quant=spec.quant,
        devices=_devices(spec.devices, host),
        device=_device(spec, host),
        source=spec.model_id,
        origins=origins(spec.model_id),
        ttl_s=_ttl_s(spec),
        pinned=spec.pin,
        force=bool(spec.force),
    )


def _refuse_unsupported(spec: ModelSpec) -> None:
    if spec.tensor_parallel not in (None, 1):
        raise UnsupportedParameter(
            f"tensor_parallel={spec.tensor_parallel}: this build runs a model on one device",
            param="tensor_parallel",
        )
    if spec.quant not in (None, *QUANTS):
        raise QuantNotFound(
            f"quant={spec.quant[:40]!r}: this build turns weights into {' or '.join(QUANTS)} while it loads them",
            hint=f"leave quant out, or name a file that is so: {spec.model_id}:{spec.quant[:40]}",
            quant=spec.quant[:40],
        )


def _dtype(name: str | None) -> str | None:
    if name is not None and name not in DTYPES:
        raise InvalidValue(f"dtype must be one of {', '.join(DTYPES)}, not {name[:40]!r}", param="dtype")
    return None if name == "auto" else name


def _ttl_s(spec: ModelSpec) -> float | None:
    if spec.ttl_s is None:
        return None
    if not (math.isfinite(spec.ttl_s) and 0 <= spec.ttl_s <= MAX_TTL_S):
        raise InvalidValue(f"ttl_s must be 0 (never) to {MAX_TTL_S:.0f} seconds", param="ttl_s")
    if spec.ttl_s and spec.pin:
        raise InvalidValue("a model that is pinned can't have a ttl", param="ttl_s", hint="leave one out")
    return spec.ttl_s


def _device(spec: ModelSpec, host: Host) -> str | None:
    """The device by its name; None leaves the choice to the settings."""
    name = spec.device
    if name is None:
        return None
    if spec.devices:
        raise InvalidValue("device and devices both name a device", param="device", hint="leave one out")
    if not DEVICE.fullmatch(name):
        raise InvalidValue(f"device must be auto, cpu, cuda or cuda:N, not {name[:40]!r}", param="device")
    if name.startswith("cuda"):
        _devices([int(name.partition(":")[2] or 0)], host)
    return name


def _devices(indices: list[int] | None, host: Host) -> tuple[int, ...] | None:
    """One CUDA device that is there; None leaves the choice to the settings."""
    if not indices:
        return None
    if len(indices) > 1:
        raise UnsupportedParameter(
            f"devices={indices[:8]}: this build runs a model on one device", param="devices"
        )
    if host.cuda_unavailable_reason:
        raise CudaUnavailable(host.cuda_unavailable_reason)
    if indices[0] not in [gpu.index for gpu in host.gpus]:
        raise InvalidValue(f"devices={indices}: this host has {len(host.gpus)} CUDA devices", param="devices")
    return tuple(indices)


def fetch_over_http(reference: str, model_roots: tuple[Path, ...]) -> Fetch:
    """How the engine gets the files of a model that a request named: paths only inside a model root."""

    def fetch(report: Report) -> Path:
        from neuron.sources import fetch as sources

        sources.resolve_over_http(reference, model_roots)
        return sources.fetch(reference, report)

    return fetch


def fetch_any(reference: str) -> Fetch:
    """How the engine gets the files of a model that the operator named."""

    def fetch(report: Report) -> Path:
        from neuron.sources import fetch as sources

        return sources.fetch(reference, report)

    return fetch


def find_over_http(reference: str, model_roots: tuple[Path, ...]) -> Find:
    """How the engine gets the headers of a model that a request named."""

    def find() -> Path | Headers:
        from neuron.sources import fetch as sources
        from neuron.sources import headers

        sources.resolve_over_http(reference, model_roots)
        return headers.find(reference)

    return find


def activations(references: tuple[str, ...]) -> list[tuple[LoadSpec, Fetch]]:
    """The models named at start."""
    from neuron.sources.fetch import origins

    return [
        (
            LoadSpec(model_id=model_id(parse_reference(text)), source=text, origins=origins(text)),
            fetch_any(text),
        )
        for text in references
    ]


def on_request(settings: Settings) -> list[tuple[LoadSpec, Fetch]]:
    """The models that a request may have loaded.

    Raises:
        ConfigError: there are such models, and none may be loaded on request.
    """
    if settings.load_on_request:
        return activations((*settings.models, *settings.models_on_request))
    if settings.models_on_request:
        raise ConfigError(
            "models_on_request names models, and load_on_request is off",
            hint="set load_on_request = true, or name them in models",
        )
    return []


def plan(found: LoadPlan) -> wire.LoadPlan:
    """What a load would take."""
    return wire.LoadPlan(
        model_id=found.model_id,
        fits=not found.missing_bytes,
        verdict=verdict(found),
        family=found.family,
        parameters=found.n_parameters,
        quant=found.quant,
        file_bytes=found.file_bytes,
        dtype=found.dtype,
        weights=found.weights,
        device=found.device,
        weight_bytes=found.weight_bytes,
        kv_bytes_per_1000_tokens=1000 * found.kv_bytes_per_token,
        context=found.context,
        model_context=found.model_context,
        free_bytes=found.free_bytes,
        headroom_bytes=found.headroom_bytes,
        evicts=list(found.evicts),
    )


def verdict(found: LoadPlan) -> str:
    """One sentence."""
    if found.missing_bytes:
        return f"does not fit: {-(-found.missing_bytes // MIB)} MB more must be free on {found.device}"
    if found.evicts:
        return f"fits once {', '.join(found.evicts)} is unloaded, which this node does by itself"
    return f"fits with a context of {found.context} tokens"
