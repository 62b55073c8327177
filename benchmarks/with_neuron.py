"""neuron's decoder without a server or a sampler, as an engine of `benchmarks.lines`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as a node sets it

import torch

from benchmarks.lines import Answer, serve
from neuron.hardware import usable_cores
from neuron.model.decoder import Decoder
from neuron.model.load import load_decoder, open_checkpoint, open_files
from neuron.model.native import best_ids


def load(path: Path, quant: str | None = None) -> Decoder:
    """As a node loads it on a CPU."""
    torch.set_num_threads(usable_cores())
    cpu = torch.device("cpu")
    decoder = load_decoder(open_checkpoint(open_files(path)), device=cpu, dtype=torch.float32, quant=quant)
    decoder.capture(16)
    return decoder


def answer(decoder: Decoder, prompt: list[int], n_new: int) -> Answer:
    """See `benchmarks.lines.Child.ask`."""
    cache = decoder.new_cache(len(prompt) + n_new)
    begin_s = time.perf_counter()
    ids = best_ids(decoder.step([(cache, prompt, True)]))
    first_s = time.perf_counter()
    while len(ids) < n_new:
        ids += best_ids(decoder.step([(cache, ids[-1:], True)]))
    return Answer(n_new, first_s - begin_s, time.perf_counter() - first_s)


def main(path: str) -> None:
    begin_s = time.perf_counter()
    decoder = load(Path(path))
    answer(decoder, [1], 1)
    serve(time.perf_counter() - begin_s, decoder.weight_bytes(), lambda *asked: answer(decoder, *asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
