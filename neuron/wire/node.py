"""The node endpoints, field for field as fleet software knows them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class ModelSpec(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of ``POST /models/load``."""

    model_id: str
    harness: str = "torch"
    quant: str | None = None
    tensor_parallel: int | None = None
    devices: list[int] | None = None
    alias: str | None = None
    """The id it is served under, where that is not ``model_id``."""
    dtype: str | None = None
    device: str | None = None
    """``auto``, ``cpu``, ``cuda``, ``cuda:N``, where ``devices`` names none."""
    ttl_s: float | None = None
    """Idle seconds after which it is unloaded; 0: never; null: as the node's settings say."""
    pin: bool | None = None
    """True: it is unloaded only by its name; null: as the node's settings say."""
    force: bool | None = None
    """True: load it although the memory that is free seems too little."""
    wait: bool | None = None
    """False: answer 202 and go on."""


class PlanRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of ``POST /models/plan``: what of a load decides how much memory it takes."""

    model_id: str
    harness: str = "torch"
    quant: str | None = None
    tensor_parallel: int | None = None
    devices: list[int] | None = None
    device: str | None = None
    dtype: str | None = None


class UnloadRequest(msgspec.Struct, kw_only=True):
    """Body of ``POST /models/unload``; without a ``model_id`` it is refused in the contract's words."""

    model_id: str | None = None
    now: bool | None = None
    """True: running answers are cut with an error; otherwise they may end, for as long as a drain takes."""


class StatusResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Answer of load and unload: ``loaded``, ``loading`` (202), ``unloaded``."""

    status: Literal["loaded", "loading", "unloaded"]
    changed: list[str] = []
    """Of a load whose model was in memory: what of it is another now: ``ttl_s``, ``pin``, ``alias``."""


class LoadPlan(msgspec.Struct, kw_only=True):
    """Answer of ``POST /models/plan``: what a load would take now, from the headers of the files."""

    model_id: str
    fits: bool
    verdict: str
    """The same in words."""
    family: str
    parameters: int
    quant: str
    """What most of the file is stored in: ``BF16``, ``Q4_1``."""
    file_bytes: int
    dtype: str
    weights: str
    """What most of the weights are kept in, in memory: ``BF16``, ``Q4_1``."""
    device: str
    weight_bytes: int
    """Weights in memory, in ``dtype``."""
    kv_bytes_per_1000_tokens: int
    context: int
    """Tokens that one answer could have, prompt included; 0 where it doesn't fit."""
    model_context: int
    """Tokens that the model allows."""
    free_bytes: int
    """What models may take on the device now."""
    headroom_bytes: int
    """What is left beside the weights; negative where they don't fit."""
    evicts: list[str]
    """Models that would be unloaded for it."""


class LoadProgress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a load that was asked for with ``Accept: text/event-stream``.

    Any number with ``status: loading``, then exactly one ``loaded`` or ``failed``.
    """

    status: Literal["loading", "loaded", "failed"]
    stage: str | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None
    note: str | None = None
    """What a person should know: a fallback taken and why."""
    error: str | dict[str, Any] | None = None
    """As in the body of the same failure without a stream."""
    code: str | None = None
    hint: str | None = None
    changed: list[str] = []
    """With ``loaded``, as in the answer without a stream."""


class Limit(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Tokens: ``context`` is what is enforced for prompt and answer together."""

    context: int
    output: int
    input: int | None = None


class ModelInfo(msgspec.Struct, kw_only=True):
    """One model in ``GET /models``."""

    id: str
    harness: str
    status: str
    """``loaded``, ``loading``, ``recovering``; with ``?all=true`` also ``failed``, ``unloading``, ``available``."""
    devices: list[int]
    vram_used_mb: int | None
    capabilities: list[str]
    limit: Limit
    tool_call: bool
    reasoning: bool
    error: str | msgspec.UnsetType = msgspec.UNSET
    """Why a ``failed`` one failed."""
    progress: LoadProgress | msgspec.UnsetType = msgspec.UNSET
    """How far a ``loading`` one is."""
    source: str | None = None
    """The reference that it was fetched from."""
    quant: str | None = None
    """What most of its file is stored in: ``BF16``, ``Q4_1``."""
    dtype: str | None = None
    """What it is computed in."""
    weights: str | None = None
    """What most of its weights are kept in, in memory."""
    device: str | None = None
    """``cpu``, ``cuda:0``."""
    in_flight: int = 0
    """Answers that are being computed."""
    queue_depth: int = 0
    """Requests that wait for a place."""
    tok_s_decode: float = 0.0
    idle_s: float | None = None
    """How long nobody has used it; null while it works or is not loaded."""
    ttl_s: float | None = None
    """Idle seconds after which it is unloaded; null: it stays."""
    pinned: bool = False
    """Whether it is unloaded only by its name."""
    alias_of: str | None = None
    """The id that it was loaded under, where this is one more id of it; then ``vram_used_mb`` is null."""
    sampling: dict[str, int | float] | None = None
    """What its files recommend, and holds where a request doesn't say; null until it is loaded."""


class ShowRequest(msgspec.Struct, kw_only=True):
    """Body of ``POST /models/show``: the id of a loaded model, or a reference that was fetched."""

    model_id: str


class ModelFile(msgspec.Struct, kw_only=True):
    """A file of a model."""

    name: str
    size_bytes: int
    sha256: str | None
    """As it was fetched; null for a file that was not."""


class ModelDescription(msgspec.Struct, kw_only=True):
    """Answer of ``POST /models/show``: what the files of a model say. Null: they don't."""

    model: str
    path: str
    """On the node's machine."""
    source: str | None
    """The reference that it was fetched from; null for a path."""
    revision: str | None
    architecture: str | None
    parameters: int
    quant: str
    """What most of it is stored in: ``BF16``, ``Q4_1``."""
    types: dict[str, int]
    """Type → how many of the parameters are stored in it, most first."""
    context: int | None
    layers: int | None
    hidden_size: int | None
    vocabulary: int | None
    special_tokens: dict[str, str]
    """``bos``, ``eos``, … → its text."""
    chat_template: str | None
    licence: str | None
    files: list[ModelFile]


class EndpointResponse(msgspec.Struct, kw_only=True):
    """Answer of ``GET /models/{model_id}/endpoint``."""

    url: str


class GpuInfo(msgspec.Struct, kw_only=True):
    """A GPU as it is since start."""

    index: int
    name: str
    vram_total_mb: int
    compute_capability: str


class CpuInfo(msgspec.Struct, kw_only=True):
    """The processor as it is since start."""

    model: str
    cores: int
    memory_total_mb: int


class DiscoveryResponse(msgspec.Struct, kw_only=True):
    """Answer of ``GET /discovery``, fixed since start."""

    hostname: str
    os: str
    kernel: str
    cuda_version: str | None
    driver_version: str | None
    devices: list[GpuInfo]
    harnesses: list[str]
    max_prompt_tokens: int
    cpu: CpuInfo
    cuda_unavailable_reason: str | msgspec.UnsetType = msgspec.UNSET
    """Only where there is an NVIDIA stack that can't be used."""


class DeviceHealth(msgspec.Struct, kw_only=True):
    """A GPU as it is now."""

    index: int
    vram_used_mb: int
    vram_free_mb: int
    utilization_pct: int
    temp_c: int


class CpuHealth(msgspec.Struct, kw_only=True):
    """The host's memory and load as they are now."""

    memory_used_mb: int
    memory_free_mb: int
    load_pct: float


class ActivationFailure(msgspec.Struct, kw_only=True):
    """A pre-warm that failed."""

    model_id: str
    error: str


class Activation(msgspec.Struct, kw_only=True):
    """Pre-warm of the models named at start."""

    state: Literal["pre_warming", "ready"]
    pending: list[str]
    in_progress: str | None
    completed: list[str]
    failed: list[ActivationFailure]


class ModelLoad(msgspec.Struct, kw_only=True):
    """How busy a loaded model is."""

    id: str
    in_flight: int
    queue_depth: int
    max_in_flight: int
    max_queue_depth: int
    rejected_queue_full: int
    rejected_timeout: int
    kv_budget_mb: int
    kv_available_mb: int
    tok_s_prefill: float
    tok_s_decode: float


class DecodeHealth(msgspec.Struct, kw_only=True):
    """Whether the decode loop makes progress."""

    active: int
    last_step_age_ms: float


class HealthResponse(msgspec.Struct, kw_only=True):
    """Answer of ``GET /health``; the same body with 503 once the decode loop is stalled."""

    uptime_secs: int
    devices: list[DeviceHealth]
    activation: Activation
    models: list[ModelLoad]
    cpu: CpuHealth
    decode: DecodeHealth
    accepting: bool


class VersionResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Answer of ``GET /version``."""

    package_version: str
    python: str
    torch: str
    platform: str
    features: list[str]
    git_sha: str | None = None


class ReadyResponse(msgspec.Struct, kw_only=True):
    """Answer of ``GET /ready``: 200 while accepting, else 503."""

    ready: bool


class RequestInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request for text or vectors, in ``GET /requests``. Times are in milliseconds.

    The times from ``read_ms`` to ``deliver_ms`` add up to ``total_ms``; of a request that runs they are those up to
    now.
    """

    id: str
    path: str
    state: Literal["queued", "prefill", "decoding", "finished", "cut", "failed", "refused"]
    arrived: float
    """Seconds since the epoch."""
    read_ms: float
    """From the arrival to the end of the body."""
    load_ms: float
    """Waiting until the model is in memory."""
    prepare_ms: float
    """Rendering the template, tokenising, compiling a grammar."""
    queue_ms: float
    """Waiting for a place and for the device."""
    prefill_ms: float
    """Computing the prompt, up to the first token."""
    decode_ms: float
    """The tokens after the first; what is written meanwhile takes no time of its own."""
    deliver_ms: float
    """From the last token to the last byte."""
    total_ms: float
    stream: bool
    model: str | None = None
    principal: str | None = None
    """The name of the key that was shown."""
    first_token_ms: float | None = None
    """From the arrival to the first token."""
    n_prompts: int = 1
    """Prompts of a request for completions, inputs of one for vectors."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    """Of the prompt, whose cache was reused."""
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    drafted_tokens: int | None = None
    """Guessed ahead and checked in a step with others."""
    drafted_right_tokens: int | None = None
    """Those of them that became part of an answer."""
    tokens_per_s: float | None = None
    """Of the tokens after the first."""
    finish_reason: str | None = None
    """Of a finished one: ``stop``, ``length``, ``tool_calls``; ``done`` for vectors."""
    code: str | None = None
    """Of a failed or refused one: the error's."""
    param: str | None = None
    """What was refused of the request."""
    cause: str | None = None
    """Of a failure of the node."""
    parameters: dict[str, Any] = {}
    """What was said of sampling and limits."""
    prompts: list[str] | None = None
    """With ``log_prompts`` alone, as all that follows."""
    answers: list[str] | None = None
    reasoning: list[str] | None = None


class NodeEvent(msgspec.Struct, kw_only=True):
    """One event of ``GET /events``; the event's own fields stand beside these."""

    seq: int
    """Counted from 1 since the start of the node."""
    time: float
    """Seconds since the epoch."""
    level: Literal["info", "warning", "error", "critical"]
    event: str


class DrainRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of ``POST /drain``, which may be left out."""

    timeout_s: float | None = None
    """How long admitted work may go on; None: the node's ``drain_s``."""


class DrainResponse(msgspec.Struct, kw_only=True):
    """Answer of ``POST /drain``."""

    status: Literal["draining"] = "draining"
    timeout_s: float
    """The time that counts."""
