"""`transformers` as an engine of the benchmark, with the attention that it picks by default."""

from __future__ import annotations

from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

for _name in ("accelerate", "gguf", "transformers.models.llama.modeling_llama"):
    import_module(_name)  # else imported while the first model loads
logging: Any = transformers.utils.logging
logging.set_verbosity_error()
logging.disable_progress_bar()


class TransformersEngine:
    """See `benchmarks.loop.Engine`."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def begin(self, capacity: int) -> TransformersSequence:
        return TransformersSequence(self.model)

    def weight_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.model.parameters())


class TransformersSequence:
    """See `benchmarks.loop.Sequence`."""

    def __init__(self, model: Any) -> None:
        self.model, self.past = model, None

    @torch.inference_mode()
    def step(self, ids: list[int]) -> int:
        # the cache by its place: its name changes between versions
        out = self.model(torch.tensor([ids]), None, None, self.past, use_cache=True, logits_to_keep=1)
        self.past = out.past_key_values
        return int(out.logits[0, -1].argmax())


def load(path: Path) -> TransformersEngine:
    """Read a folder, or a GGUF file, which is dequantised."""
    where: tuple[Path, str | None] = (path, None) if path.is_dir() else (path.parent, path.name)
    with redirect_stderr(StringIO()):  # a progress bar without a switch
        model: Any = AutoModelForCausalLM.from_pretrained(where[0], gguf_file=where[1], dtype=torch.float32)
    return TransformersEngine(model.eval())
