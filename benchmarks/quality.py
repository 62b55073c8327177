"""What a weight format costs: perplexity on a text, and divergence from float32, of each one that is computed."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.models import folder, gguf, off_grid
from benchmarks.report import lined, machine
from benchmarks.texts import all_ids
from benchmarks.with_neuron import load
from neuron.model.decoder import Decoder, make_batch

OUT = Path(__file__).parents[1] / "docs" / "benchmarks"
WINDOW = 512
"""Tokens that are read at a time, each window from an empty cache."""

FORMATS = (
    ("F32", "safetensors", lambda: load(folder("float32"))),
    ("F16", "GGUF", lambda: load(gguf("F16"))),
    ("BF16", "safetensors", lambda: load(folder("bfloat16"))),
    ("Q8_0", "GGUF", lambda: load(gguf("Q8_0"))),
    ("Q4_1", "GGUF", lambda: load(gguf("Q4_1"))),
    ("Q4_0", "GGUF", lambda: load(gguf("Q4_0"))),
    ("int8", "quantised on load from float32", lambda: load(folder("float32"), "int8")),
    ("int4", "quantised on load from float32", lambda: load(folder("float32"), "int4")),
    ("F32", "safetensors, off the grid", lambda: load(off_grid())),
    ("int8", "quantised on load, off the grid", lambda: load(off_grid(), "int8")),
    ("int4", "quantised on load, off the grid", lambda: load(off_grid(), "int4")),
)
"""Name, where the weights come from, how to load them. The first is what the others are compared with."""

INTRO = """# Quality by weight format

`make quality` reads the first five chapters of Alice's Adventures in Wonderland (Lewis Carroll, 1865, in the public
domain; `benchmarks/text/alice.txt`) in windows of {window} tokens with SmolLM2-135M-Instruct, {n} tokens in all.
Perplexity is exp of the mean negative log likelihood of each next token; KL the mean divergence of its distribution
from that of float32, in nats; the last column how often both find the same token likeliest.

The weights are those of the Q4_1 file of the package index, in float32 and from there in other formats. So Q4_1
loses nothing here, and neither does int4 on load, which finds the very grid that they lie on (groups of 32 with a
scale and a minimum): of weights that were never quantised these rows say nothing. Q4_0, a grid without a minimum,
rounds them a second time and loses more than it would of such weights. F16 to Q8_0 and int8 hold for any.

*Off the grid* is the same function of other weights: inputs of each product times random factors (log-normal, a
tenth), and what makes them divided by the same. What int4 loses there it loses of any weights.

K-quants are kept as Q4_1 or Q8_0; what that changes, and what int8 with one scale for each output would lose, is in
[log.md](log.md).
"""


@dataclass
class Quality:
    """Of one format."""

    name: str
    source: str
    weights_mib: float
    perplexity: float
    kl: float
    same: float
    """Share of positions."""

    def cells(self) -> tuple[str, ...]:
        """One line of the table."""
        figures = (
            f"{self.weights_mib:,.0f} MiB",
            f"{self.perplexity:.3f}",
            f"{self.kl:.1e}",
            f"{self.same:.2%}",
        )
        return self.name, self.source, *figures


def main() -> None:
    """Measure every format and write the table."""
    decoders = [make() for _, _, make in FORMATS]
    sums = torch.zeros(len(FORMATS), 4, dtype=torch.float64)
    for at, window in enumerate(windows := torch.tensor(all_ids()).split(WINDOW)):
        print(f"window {at + 1} of {len(windows)}", file=sys.stderr, flush=True)
        exact = log_probabilities(decoders[0], window)
        sums += torch.tensor([scores(decoder, window, exact) for decoder in decoders], dtype=torch.float64)
    found = [
        Quality(name, source, decoder.weight_bytes() / 2**20, math.exp(nll / n), kl / n, same / n)
        for (name, source, _), decoder, (nll, kl, same, n) in zip(
            FORMATS, decoders, sums.tolist(), strict=True
        )
    ]
    write(found)


def write(found: Sequence[Quality]) -> None:
    """The table, with what it was made on."""
    head = ("format", "from", "weights", "perplexity", "KL to float32", "same likeliest token")
    told = [f"- {key}: {value}" for key, value in machine().items()]
    intro = INTRO.format(window=WINDOW, n=f"{len(all_ids()):,}")
    table = lined(head, (each.cells() for each in found))
    (OUT / "quality.md").write_text("\n".join([intro, *told, "", table, ""]))
    print(table)


def scores(decoder: Decoder, window: Tensor, exact: Tensor) -> tuple[float, float, float, int]:
    """Sums over the positions of a window: negative log likelihood, KL, same tokens, positions."""
    got = log_probabilities(decoder, window)
    nll = -got.gather(1, window[1:, None]).double().sum()
    kl = (exact.exp() * (exact - got)).sum(dim=1).double().sum()
    same = (exact.argmax(dim=1) == got.argmax(dim=1)).sum()
    return float(nll), float(kl), float(same), len(got)


def log_probabilities(decoder: Decoder, window: Tensor) -> Tensor:
    """[n - 1, V] float32: of each token behind the first."""
    cache, ids = decoder.new_cache(len(window)), window.tolist()
    logits = decoder.forward(make_batch([(cache, ids, len(ids))], decoder.device))
    return logits[:-1].log_softmax(dim=1)


if __name__ == "__main__":
    main()
