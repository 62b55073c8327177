"""`transformers`, with the attention that it picks, run by the peers' Python: an engine of `benchmarks.lines`."""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.lines import Answer, serve

for _name in ("accelerate", "transformers.models.llama.modeling_llama"):
    import_module(_name)  # else imported while the model loads
logging: Any = transformers.utils.logging
logging.disable_progress_bar()


class Engine:
    """A model read from a folder of safetensors."""

    def __init__(self, folder: str, dtype: str) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def answer(self, prompt: list[int], n_new: int) -> Answer:
        """See `benchmarks.lines.Child.ask`."""
        begin_s = time.perf_counter()
        new, past = self._step(prompt, None)
        ids, first_s = [new], time.perf_counter()
        while len(ids) < n_new:
            new, past = self._step(ids[-1:], past)
            ids.append(new)
        return Answer(n_new, first_s - begin_s, time.perf_counter() - first_s)

    @torch.inference_mode()
    def _step(self, ids: list[int], past: Any) -> tuple[int, Any]:
        # the cache by its place: its name changes between versions
        out = self.model(torch.tensor([ids]), None, None, past, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax()), out.past_key_values

    def weight_bytes(self) -> int:
        """Bytes of the weights, a tied one once."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())


def main(folder: str, dtype: str) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    begin_s = time.perf_counter()
    engine = Engine(folder, dtype)
    engine.answer([1], 1)
    serve(time.perf_counter() - begin_s, engine.weight_bytes(), engine.answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
