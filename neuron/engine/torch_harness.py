"""The one harness: loads a model's files into memory and gives it to the thread of its device."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuron.engine.budgets import firm_bytes, in_use_bytes, share_bytes
from neuron.engine.embedder import Embedder
from neuron.engine.gate import Gate
from neuron.engine.loaded import LoadedModel
from neuron.engine.memory import free_memory
from neuron.engine.plan import FORCED_CACHE_TOKENS, MIN_CACHE_TOKENS, LoadPlan
from neuron.engine.prefix import PrefixCache
from neuron.engine.request import LoadSpec, Sampling
from neuron.engine.worker import Deliver, Slot, Worker
from neuron.errors import InsufficientMemory, InvalidModelFile, UnsupportedParameter
from neuron.files import Headers, ModelFolder
from neuron.gguf import GgufFile
from neuron.hardware import usable_cores
from neuron.log import event
from neuron.model.arch import ArchConfig, EncoderConfig
from neuron.model.checkpoint import Checkpoint, prevailing_dtype
from neuron.model.decoder import Decoder
from neuron.model.device import free_bytes, pick_device, pick_dtype
from neuron.model.encoder import Encoder
from neuron.model.families import arch_config
from neuron.model.load import blueprint, bytes_for_weights, load_model, open_checkpoint, open_files
from neuron.model.native import rounds, set_exact
from neuron.model.pooling import read_pooling
from neuron.model.safetensors_checkpoint import HeadersCheckpoint
from neuron.progress import Progress, Report
from neuron.settings import Settings
from neuron.text.grammar import GrammarCompiler
from neuron.text.load import TextModel, load_text

log = logging.getLogger("neuron.engine")


class TorchHarness:
    """Models in torch, one `Worker` for each device. ``models`` says which are in memory."""

    def __init__(
        self, settings: Settings, deliver: Deliver, models: Callable[[], Sequence[LoadedModel]]
    ) -> None:
        self._settings = settings
        self._deliver = deliver
        self._models = models
        self._workers: dict[torch.device, Worker] = {}
        if settings.threads:
            torch.set_num_threads(settings.threads)
        set_exact(settings.exact_prompts)

    def configure(self, settings: Settings) -> None:
        """Models that are loaded from now on get these limits."""
        self._settings = settings

    def load(self, spec: LoadSpec, path: Path, report: Report) -> LoadedModel:
        """Load and warm up; blocking, for a thread of its own. Nothing stays behind when it raises."""
        files = open_files(path)
        with closing(open_checkpoint(files)) as checkpoint:
            model = self._read(spec, files, checkpoint, path, report)
        if model.generates:
            warm_grammars(model.grammars)
        model.worker.add_slot(model.slot)
        return model

    def plan(self, spec: LoadSpec, found: Path | Headers) -> LoadPlan:
        """What `load` would take; reads headers and takes no memory of the device. Blocking.

        Raises:
            what `load` raises for the headers, but for `InsufficientMemory`.
        """
        device, dtype = self._place(spec)
        checkpoint = _headers(found, spec.model_id)
        try:
            quant = self._quant(spec, arch_config(checkpoint.config))
            weights = blueprint(checkpoint, dtype, device, quant)
            context = self._context(weights.arch)
            if isinstance(weights, Encoder):
                context = _embed_context(found, context)
        finally:
            checkpoint.close()
        return LoadPlan(
            model_id=spec.model_id,
            family=weights.arch.family,
            n_parameters=sum(view.numel() for _, view in weights.named_views()),
            quant=prevailing_dtype(checkpoint),
            file_bytes=sum(tensor.n_bytes for tensor in checkpoint.tensors.values()),
            dtype=_name(dtype),
            weights=kept_in(weights),
            device=str(device),
            weight_bytes=weights.weight_bytes(),
            kv_bytes_per_token=weights.arch.kv_bytes_per_token(dtype.itemsize),
            model_context=context,
            free_bytes=self._free_bytes(device),
            room_bytes=bytes_for_weights(weights.weight_bytes()),
            cache_bytes=(self._settings.kv_budget_mb or 0) << 20 or None,
        )

    def workers(self) -> list[Worker]:
        """The device threads that run."""
        return list(self._workers.values())

    def free_memory(self) -> None:
        """Give back what a model left; blocking."""
        free_memory()

    def close(self) -> None:
        """End the device threads."""
        for worker in self._workers.values():
            worker.stop()

    def _read(
        self,
        spec: LoadSpec,
        files: ModelFolder | GgufFile,
        checkpoint: Checkpoint,
        path: Path,
        report: Report,
    ) -> LoadedModel:
        device, dtype = self._place(spec)
        arch = arch_config(checkpoint.config)
        text = load_text(files, spec.tool_format)
        if text.vocab_size > arch.vocab_size:
            raise InvalidModelFile(
                f"{path}: the tokenizer has {text.vocab_size} ids and the model {arch.vocab_size}"
            )
        pooling = read_pooling(files, is_encoder=isinstance(arch, EncoderConfig))
        if spec.force:
            event(log, "memory is not checked", level=logging.WARNING, id=spec.model_id, reason="force")
        free = None if spec.force else self._free_bytes
        quant = self._quant(spec, arch)
        weights = load_model(checkpoint, device=device, dtype=dtype, quant=quant, report=report, free=free)
        report(Progress("warm up"))
        warm_up(weights, self._settings.max_in_flight)
        embedder = Embedder(weights, pooling, self._settings.prefill_chunk_tokens)
        return self._model(spec, embedder, text, sampling_defaults(files), prevailing_dtype(checkpoint))

    def _model(
        self, spec: LoadSpec, embedder: Embedder, text: TextModel, defaults: Sampling, quant: str
    ) -> LoadedModel:
        s, weights = self._settings, embedder.model
        arch, device = weights.arch, weights.device
        decoder = weights if isinstance(weights, Decoder) else None
        context = self._context(arch)
        embed_context = min(context, embedder.pooling.max_tokens or context)
        per_token = arch.kv_bytes_per_token(weights.dtype.itemsize)
        budget = (s.kv_budget_mb or 0) << 20 or share_bytes(
            self._room_bytes(device, weights.weight_bytes()),
            self._models_on(device),
            s.max_in_flight * context * per_token,
        )
        budget = _checked_budget(budget, per_token, spec.force)
        return LoadedModel(
            id=spec.model_id,
            text=text,
            grammars=GrammarCompiler(text.tokenizer.inner.to_str(), arch.vocab_size, text.eos_ids),
            worker=self._worker(device),
            slot=Slot(
                decoder,
                s.prefill_chunk_tokens,
                embedder,
                prefix_cache(s, budget),
                speculates=s.speculation,
            ),
            gate=Gate(
                max_in_flight=s.max_in_flight,
                max_queue_depth=s.max_queue_depth,
                queue_timeout_s=s.queue_timeout_s,
                kv_budget_bytes=budget,
            ),
            devices=() if device.type == "cpu" else (device.index or 0,),
            device=str(device),
            dtype=_name(weights.dtype),
            weights=kept_in(weights),
            quant=quant,
            vocab_size=arch.vocab_size,
            weight_bytes=weights.weight_bytes(),
            kv_bytes_per_token=per_token,
            model_context=context if decoder else embed_context,
            defaults=defaults,
            fingerprint=fingerprint(weights),
            embed_context=embed_context,
            generates=decoder is not None,
        )

    def _place(self, spec: LoadSpec) -> tuple[torch.device, torch.dtype]:
        """Where a model is loaded, and in what."""
        device = self._device(spec)
        return device, pick_dtype(spec.dtype or self._settings.dtype, device)

    def _quant(self, spec: LoadSpec, arch: ArchConfig | EncoderConfig) -> str | None:
        """What matrices are turned into; the settings' is for decoders alone."""
        by_default = isinstance(arch, ArchConfig) and self._settings.quant != "none"
        return spec.quant or (self._settings.quant if by_default else None)

    def _context(self, arch: ArchConfig | EncoderConfig) -> int:
        return min(arch.context, self._settings.context or arch.context)

    def _free_bytes(self, device: torch.device) -> int:
        """What one more model may take: what is free there and firmly promised to none."""
        return max(0, self._room_bytes(device) - sum(map(firm_bytes, self._models_on(device))))

    def _room_bytes(self, device: torch.device, own_bytes: int = 0) -> int:
        """What is not in use: on the device, and of what the settings allow to models.

        ``own_bytes`` are in memory already and not yet among what models have in use.
        """
        free, budget_mb = free_bytes(device) + _kept_by_torch(device), self._settings.memory_budget_mb
        if budget_mb is None:
            return free
        return min(free, max(0, (budget_mb << 20) - sum(map(in_use_bytes, self._models())) - own_bytes))

    def _models_on(self, device: torch.device) -> list[LoadedModel]:
        return [model for model in self._models() if model.device == str(device)]

    def _device(self, spec: LoadSpec) -> torch.device:
        if not spec.devices:
            return pick_device(spec.device or self._settings.device)
        if len(spec.devices) > 1:
            raise UnsupportedParameter(
                "this build runs a model on one device", param="devices", hint="name one"
            )
        return pick_device(f"cuda:{spec.devices[0]}")

    def _worker(self, device: torch.device) -> Worker:
        if device not in self._workers:
            threads = self._settings.threads or usable_cores()
            self._workers[device] = Worker(str(device), threads, self._deliver)
        return self._workers[device]


def _kept_by_torch(device: torch.device) -> int:
    """Bytes of caches that are gone: torch keeps them from the device, and gives them out again."""
    if device.type != "cuda":
        return 0
    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _headers(found: Path | Headers, where: str) -> Checkpoint:
    if isinstance(found, Headers):
        return HeadersCheckpoint(found, where)
    return open_checkpoint(open_files(found))


def _embed_context(found: Path | Headers, context: int) -> int:
    """Tokens of a text that an encoder embeds; its pooling's limit is not known without its files."""
    if isinstance(found, Headers):
        return context
    return min(context, read_pooling(open_files(found), is_encoder=True).max_tokens or context)


def _checked_budget(budget: int, per_token: int, force: bool) -> int:
    """The cache's bytes, if they hold the fewest tokens; more than there seem to be where the load is forced."""
    if force:
        return max(budget, per_token * FORCED_CACHE_TOKENS)
    least = per_token * MIN_CACHE_TOKENS
    if budget < least:
        raise InsufficientMemory(
            f"{budget >> 20} MB are left for the cache, and {MIN_CACHE_TOKENS} tokens need {least >> 20}",
            hint="unload another model, load with a narrower --dtype, or skip this check with --force",
            required_mb=least >> 20,
            free_mb=budget >> 20,
        )
    return budget


def warm_up(model: Decoder | Encoder, max_in_flight: int) -> None:
    """One short prefill, so that the first request does not pay for first-use costs; on a GPU the decode graphs.

    Raises:
        InvalidModelFile: what came of it are no numbers.
    """
    if isinstance(model, Encoder):
        model.states([[0, 0, 0]])
    else:
        logits = model.step([(model.new_cache(2), [0, 0], True)])
        if not logits.isfinite().all():
            raise InvalidModelFile(
                "the model computes numbers that are not finite",
                hint="the file is damaged, or its numbers need a wider --dtype",
            )
        model.capture(max_in_flight)


def warm_grammars(grammars: GrammarCompiler) -> None:
    """Build what every constrained answer needs, so that the first one does not stop the others for it."""
    try:
        grammars.warm()
    except InvalidModelFile:
        pass  # the model answers all the same; a request with a constraint is told why it can't have it


def prefix_cache(settings: Settings, kv_budget_bytes: int) -> PrefixCache | None:
    """Where beginnings of sequences are kept; if not said, an eighth of the cache memory and at most 1 GiB."""
    if settings.prefix_cache_mb is None:
        return PrefixCache(min(kv_budget_bytes // 8, 1 << 30))
    return PrefixCache(settings.prefix_cache_mb << 20) if settings.prefix_cache_mb else None


def kept_in(model: Decoder | Encoder) -> str:
    """What most of the weights are kept in: a file's format, or the dtype."""
    n_weights: Counter[str] = Counter()
    for _, view in model.named_views():
        n_weights[_name(view.dtype) if isinstance(view, torch.Tensor) else view.format.name] += view.numel()
    return n_weights.most_common(1)[0][0]


def fingerprint(model: Decoder | Encoder) -> str:
    """Build, kernels and weights, on which the last bits of a sum depend: the same ones give the same text."""
    device = model.device
    if device.type == "cuda":
        kernels = torch.cuda.get_device_name(device).replace(" ", "_")
    else:
        of = "native" if isinstance(model, Decoder) and model.lm_head.packed else "torch"
        of += "-int16" if of == "native" and rounds() else ""
        kernels = f"{torch.backends.cpu.get_cpu_capability().lower()}-{torch.get_num_threads()}t-{of}"
    numbers = f"{_name(model.dtype)}-{kept_in(model).lower()}"
    return f"neuron-{version('neuron-node')}-torch-{torch.__version__}-{device.type}-{kernels}-{numbers}"


def sampling_defaults(files: ModelFolder | GgufFile) -> Sampling:
    """What ``generation_config.json`` says about sampling; nothing where there is none."""
    config = files.json("generation_config.json") if isinstance(files, ModelFolder) else None
    if not config:
        return Sampling()
    ranges = {
        "temperature": (0.0, 100.0),
        "top_p": (0.0, 1.0),
        "top_k": (0, 1 << 24),
        "min_p": (0.0, 1.0),
        "repetition_penalty": (0.01, 100.0),
    }
    said: dict[str, Any] = {}
    for key, (low, high) in ranges.items():
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InvalidModelFile(f"generation_config.json: {key} is {value!r}, expected {low} to {high}")
        said[key] = value
    return Sampling(**said)
