"""From a checkpoint to a model: headers first, then tensor by tensor straight into its place."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from neuron import faults
from neuron.errors import (
    EmptyRepo,
    InsufficientMemory,
    InvalidModelFile,
    UnsupportedArchitecture,
    UnsupportedParameter,
    WeightMismatch,
)
from neuron.files import ModelFolder
from neuron.gguf import GgufFile
from neuron.model.arch import ArchConfig, EncoderConfig
from neuron.model.checkpoint import Checkpoint
from neuron.model.decoder import Decoder
from neuron.model.device import free_bytes, runs_triton
from neuron.model.encoder import Encoder
from neuron.model.families import arch_config
from neuron.model.gguf_checkpoint import GgufCheckpoint
from neuron.model.grouped import Groups
from neuron.model.native import library
from neuron.model.packed import Format, Packing, Tiles, Weight, format_of
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from neuron.progress import Progress, Report, ignore

MEMORY_RESERVE = 0.05
"""Share of the free memory that the weights may not take."""


def open_files(path: Path) -> ModelFolder | GgufFile:
    """A model's files by what ``path`` is: a folder, or a ``.gguf`` file."""
    if path.is_dir():
        return ModelFolder(path)
    if path.suffix == ".gguf":
        return GgufFile.open(path)
    raise EmptyRepo(
        f"{path}: neither a folder nor a .gguf file", hint="name a model's folder or its .gguf file"
    )


def open_checkpoint(files: ModelFolder | GgufFile) -> Checkpoint:
    """The weights in a model's files; reads headers only. When it raises, the files are closed."""
    if isinstance(files, ModelFolder):
        return SafetensorsCheckpoint(files)
    try:
        return GgufCheckpoint(files)
    except BaseException:
        files.close()
        raise


def load_model(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quant: str | None = None,
    report: Report = ignore,
    free: Callable[[torch.device], int] | None = free_bytes,
) -> Decoder | Encoder:
    """A decoder or an encoder with the checkpoint's weights on ``device`` in ``dtype``.

    ``quant`` (one of `neuron.model.packed.QUANTS`): turn the matrices into narrower ones while they are read.
    ``free`` says how many bytes may be taken on a device; None: the weights are not compared with them.

    Peak memory is the weights and a piece of a matrix for each thread; where torch computes, a small tensor of the
    file, or twice the largest one. Every parameter is filled exactly once and every tensor of the checkpoint is
    used, or `WeightMismatch` says which are not, before anything is allocated.

    Raises:
        UnsupportedArchitecture, InvalidModelFile, WeightMismatch, WeightsChanged
        InsufficientMemory: the weights are larger than the memory that is free.
        UnsupportedParameter: ``quant`` where this build can't compute it.
    """
    plan = blueprint(checkpoint, dtype, device, quant)
    arch, sources = plan.arch, checkpoint_names(checkpoint, plan.arch)
    if free is not None:
        check_memory(plan.weight_bytes(), device, free(device))
    packing = packing_of(checkpoint, arch, device, dtype, quant)
    model = build(arch, device=device, dtype=dtype, packing=packing)
    views = dict(model.named_views())
    total = sum(checkpoint.tensors[sources[name]].n_bytes for name in views)

    # The largest first: its copy from the file is gone before the other weights take their memory.
    names = sorted(views, key=lambda name: -views[name].numel())
    n_threads = torch.get_num_threads() if packing and device.type == "cpu" else 1
    with closing(_filled(checkpoint, [(views[name], sources[name]) for name in names], n_threads)) as filled:
        for done in accumulate(filled):
            report(Progress("read", done, total))
    checkpoint.close()
    return model


def load_decoder(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quant: str | None = None,
    report: Report = ignore,
) -> Decoder:
    """`load_model` for who needs a decoder. Raises `UnsupportedArchitecture` for an encoder."""
    model = load_model(checkpoint, device=device, dtype=dtype, quant=quant, report=report)
    if not isinstance(model, Decoder):
        raise UnsupportedArchitecture(f"{model.arch.family} is an encoder, it decodes nothing")
    return model


def blueprint(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, quant: str | None = None
) -> Decoder | Encoder:
    """The checkpoint's model without its weights: shapes and sizes, no memory. Reads headers alone.

    Raises:
        UnsupportedArchitecture, InvalidModelFile
        WeightMismatch: the checkpoint lacks a tensor of it, or has one that it does not know.
    """
    arch = arch_config(checkpoint.config)
    packing = packing_of(checkpoint, arch, device, dtype, quant)
    plan = build(arch, device=torch.device("meta"), dtype=dtype, packing=packing)
    check_balance(plan.named_views(), checkpoint, checkpoint_names(checkpoint, arch), arch)
    return plan


def build(
    arch: ArchConfig | EncoderConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    packing: Packing | None = None,
) -> Decoder | Encoder:
    """The module that an architecture describes, its weights uninitialised."""
    if isinstance(arch, EncoderConfig):
        return Encoder(arch, device=device, dtype=dtype)
    return Decoder(arch, device=device, dtype=dtype, packing=packing)


def packing_of(
    checkpoint: Checkpoint,
    arch: ArchConfig | EncoderConfig,
    device: torch.device,
    dtype: torch.dtype,
    quant: str | None = None,
) -> Packing | None:
    """How the matrices are kept in the width that they are stored in; None where they are unpacked.

    Raises:
        UnsupportedParameter: ``quant``, and this build can't compute it there.
    """
    layout = _layout(device, dtype, quant) if isinstance(arch, ArchConfig) else None
    if layout is None:
        if quant:
            raise UnsupportedParameter(
                f"this build computes {quant} weights of decoders on a GPU, "
                "or on a CPU in float32 with its compiled kernels",
                param="quant",
                hint="leave --quant out, or load on a CPU with --dtype float32",
            )
        return None
    names = checkpoint_names(checkpoint, arch)
    matrices = ((name, checkpoint.tensors[stored]) for name, stored in names.items())
    return layout({name: format_of(name, info, quant) for name, info in matrices if len(info.shape) == 2})


def _layout(
    device: torch.device, dtype: torch.dtype, quant: str | None
) -> Callable[[Mapping[str, Format]], Packing] | None:
    """A CPU's kernels take every width in float32. Where a GPU has none each step unpacks, so only if asked for."""
    if device.type == "cpu":
        return Tiles if dtype == torch.float32 and library() else None
    return partial(Groups, dtype=dtype) if quant or runs_triton(device) else None


def checkpoint_names(checkpoint: Checkpoint, arch: ArchConfig | EncoderConfig) -> dict[str, str]:
    """The checkpoint's name of each tensor by the name that this build gives it.

    Raises:
        WeightMismatch: two tensors come to one name.
    """
    names: dict[str, str] = {}
    for stored in checkpoint.tensors:
        name = stored
        for rename in arch.renames:
            name = re.sub(rename.pattern, rename.replacement, name)
        if name in names:
            raise WeightMismatch(f"tensors {names[name]} and {stored} are the same one of {arch.family}")
        names[name] = stored
    return names


def check_balance(
    expected: Iterable[tuple[str, Weight]],
    checkpoint: Checkpoint,
    sources: Mapping[str, str],
    arch: ArchConfig | EncoderConfig,
) -> None:
    """Compare names and shapes of what the architecture needs with what the checkpoint has."""
    shapes = {name: tuple(view.shape) for name, view in expected}
    found = {name: checkpoint.tensors[sources[name]].shape for name in shapes.keys() & sources.keys()}
    missing = sorted(shapes.keys() - sources.keys())
    unknown = sorted(
        sources[name] for name in sources.keys() - shapes.keys() if not re.fullmatch(arch.drops, name)
    )
    wrong = [
        f"{sources[name]} is {list(found[name])}, expected {list(shape)}"
        for name, shape in shapes.items()
        if name in found and found[name] != shape
    ]
    whole = sorted(sources[name] for name in found if checkpoint.tensors[sources[name]].dtype == "I64")
    faults = [
        f"{what}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", wrong),
            ("of whole numbers", whole),
        )
        if names
    ]
    if faults:
        raise WeightMismatch(
            f"{len(shapes)} tensors needed for {arch.family}, {len(checkpoint.tensors)} in the file; "
            + "; ".join(faults)
        )


def check_memory(weight_bytes: int, device: torch.device, free: int) -> None:
    """Raise `InsufficientMemory` unless the weights fit in ``free`` bytes of the device, less a reserve."""
    if bytes_for_weights(weight_bytes) > free:
        raise InsufficientMemory(
            f"the weights need {weight_bytes >> 20} MB and {free >> 20} MB are free on {device}",
            hint="unload another model, load with a narrower --dtype, or skip this check with --force",
            required_mb=weight_bytes >> 20,
            free_mb=free >> 20,
        )


def bytes_for_weights(weight_bytes: int) -> int:
    """How much must be free for weights of so many bytes."""
    return math.ceil(weight_bytes / (1 - MEMORY_RESERVE))


def _filled(
    checkpoint: Checkpoint, work: Sequence[tuple[Weight, str]], n_threads: int
) -> Generator[int, None, None]:
    """Read each tensor into its weight, several at a time; bytes of each. Nothing more is read after a failure."""
    inference = torch.is_inference_mode_enabled()  # of this thread, and so of those that fill
    is_over = threading.Event()

    def fill(one: tuple[Weight, str]) -> int:
        view, name = one
        if is_over.is_set():
            return 0
        try:
            faults.at("load")
            with torch.inference_mode(inference):
                if isinstance(view, Tensor):
                    view.copy_(_read(checkpoint, name, view))
                else:
                    view.fill(checkpoint, name)
        except BaseException:
            is_over.set()
            raise
        return checkpoint.tensors[name].n_bytes

    threads = ThreadPoolExecutor(n_threads, "neuron-load")
    try:
        yield from threads.map(fill, work)
    finally:
        is_over.set()
        threads.shutdown(cancel_futures=True)


def _read(checkpoint: Checkpoint, name: str, view: Tensor) -> Tensor:
    tensor = checkpoint.read(name)
    if tensor.shape != view.shape or not tensor.is_floating_point():
        raise InvalidModelFile(f"tensor {name} is not what the file's header says")
    return tensor
