"""What the engine says about itself: snapshots that are read without waiting for any device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from neuron.engine.request import Sampling
from neuron.progress import Progress

ModelState = Literal["available", "loading", "loaded", "unloading", "failed"]
"""``available``: not in memory, a request for it has it loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model in any state."""

    id: str
    harness: str
    state: ModelState
    alias_of: str | None = None
    """The id that it was loaded under, where this is one more name of it."""
    devices: tuple[int, ...] = ()
    """CUDA indices; empty on a CPU."""
    weight_bytes: int | None = None
    context: int = 0
    """Tokens of prompt and answer together that are enforced."""
    dtype: str | None = None
    weights: str | None = None
    reasoning: bool = False
    """Whether the chat template knows about thinking."""
    tool_call: bool = False
    """Whether the chat template knows about tools."""
    generates: bool = True
    """Whether it answers prompts; False for an encoder, which only embeds."""
    fingerprint: str | None = None
    """Names build, dtype, device and kernels: same fingerprint, seed and request, same text."""
    progress: Progress | None = None
    error: str | None = None
    loaded_at_s: int = 0
    """Wall clock, seconds since the epoch."""
    load: LoadFigures | None = None
    """None until loaded."""
    load_s: float = 0.0
    """How long the load took, the fetch included."""
    source: str | None = None
    """The reference that it was fetched from."""
    path: str | None = None
    """Its folder or ``.gguf`` file."""
    quant: str | None = None
    """What most of its file is stored in: ``BF16``, ``Q4_1``."""
    device: str | None = None
    """``cpu``, ``cuda:0``."""
    ttl_s: float | None = None
    """Idle seconds after which it is unloaded; None: it stays."""
    idle_s: float | None = None
    """How long nobody has used it; None while it works or is not loaded."""
    pinned: bool = False
    sampling: Sampling | None = None
    """What its files recommend; None until it is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """How busy a model is."""

    in_flight: int = 0
    queue_depth: int = 0
    max_in_flight: int = 0
    max_queue_depth: int = 0
    rejected_queue_full: int = 0
    rejected_timeout: int = 0
    kv_budget_bytes: int = 0
    kv_free_bytes: int = 0
    prefill_tok_s: float = 0.0
    decode_tok_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """Pre-warm of the models named at start. An id is in exactly one list."""

    state: Literal["pre_warming", "ready"] = "ready"
    pending: tuple[str, ...] = ()
    in_progress: str | None = None
    completed: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    """(model id, reason)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeStatus:
    """Whether the decode loop makes progress."""

    active: int = 0
    last_step_age_ms: float = 0.0
    stalled: bool = False
    accepting: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """Loads since start, by how they ended."""

    loaded: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """Everything at once."""

    models: tuple[ModelStatus, ...] = ()
    activation: Activation = field(default_factory=Activation)
    decode: DecodeStatus = field(default_factory=DecodeStatus)
    loads: Loads = field(default_factory=Loads)
