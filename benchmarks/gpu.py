"""What a GPU reaches: ``python -m benchmarks.gpu`` writes ``docs/benchmarks/gpu.md``.

Real shapes with random weights, since speed does not depend on the values: bfloat16, and matrices of 8 and 4 bits
as ``--quant int8`` and ``int4`` make them (activations in bfloat16). Beside it, in the same run: the bandwidth of a
copy on the device, the same decoder without recorded steps (a plain torch loop), transformers.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

from neuron.engine.engine import Engine
from neuron.engine.events import Finished
from neuron.engine.request import Generation, LoadSpec, Sampling, TokenPrompt
from neuron.model.arch import ArchConfig, Attention, Layer, Mlp, Rope
from neuron.model.checkpoint import TensorInfo
from neuron.model.decoder import Decoder, make_batch
from neuron.model.grouped import GroupedWeight, Groups
from neuron.model.packed import Format, format_of
from neuron.settings import Settings
from tests.support.tiny_chat import byte_tokenizer

OUT = Path(__file__).parents[1] / "docs" / "benchmarks"
CUDA = torch.device("cuda")
STREAMS = (1, 8, 64)
STORED = ("bfloat16", "int8", "int4")
"""What weights are kept in."""
N_PROMPT, N_NEW = 128, 128
N_PREFILLS = (256, 2048)
"""As the default cuts a prompt, and where unpacking the weights costs least."""
N_SLOW = 16
"""New tokens of the loops that neuron is compared with."""
ROUNDS = 3


def shape(name: str, hidden: int, layers: int, heads: tuple[int, int], mlp: int, vocab: int) -> ArchConfig:
    """A llama of this size."""
    n_heads, n_kv_heads = heads
    return ArchConfig(
        family=name,
        vocab_size=vocab,
        hidden_size=hidden,
        attention=Attention(n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=hidden // n_heads),
        mlp=Mlp(intermediate=mlp),
        layers=(Layer(rope=Rope(theta=5e5, dim=hidden // n_heads)),) * layers,
        norm_eps=1e-5,
        tied_embeddings=False,
        context=8192,
    )


SHAPES = (
    shape("tiny", 256, 2, (8, 4), 512, 512),
    shape("1.7B", 2048, 24, (32, 32), 8192, 49152),
    shape("8B", 4096, 32, (32, 8), 14336, 128256),
)


@dataclass(kw_only=True)
class Figure:
    """One row of the table."""

    model: str
    weights: str
    what: str
    streams: int
    tok_s: float
    """Of all streams together."""
    spread: tuple[float, float]
    gb_s: float | None = None
    """Bytes of weights and cache that a step must read, by the time of a step."""
    of_copy: float | None = None


def copy_gb_s() -> float:
    """Bytes read and written by a copy of 4 GiB on the device."""
    source = torch.empty(1 << 32, dtype=torch.uint8, device=CUDA)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    return 2 * source.numel() / min(timed(copy) for _ in range(10)) / 1e9


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    begin_s = time.perf_counter()
    work()
    return time.perf_counter() - begin_s


def random_decoder(arch: ArchConfig, stored: str = "bfloat16") -> Decoder:
    """A decoder whose weights keep activations finite, computed in bfloat16."""
    packing = None if stored == "bfloat16" else Groups(formats_of(arch, stored), torch.bfloat16)
    decoder = Decoder(arch, device=CUDA, dtype=torch.bfloat16, packing=packing)
    for _, view in decoder.named_views():
        if isinstance(view, GroupedWeight):
            fill_groups(view)
        elif isinstance(view, torch.Tensor) and view.ndim == 1:
            view.fill_(1)
        elif isinstance(view, torch.Tensor):
            view.normal_(0, 0.5 / view.shape[1] ** 0.5)
    return decoder


def formats_of(arch: ArchConfig, quant: str) -> dict[str, Format]:
    """The format of each matrix, as a load with ``--quant`` chooses it."""
    plain = Decoder(arch, device=torch.device("meta"), dtype=torch.bfloat16)
    shapes = {name: tuple(view.shape) for name, view in plain.named_views()}
    return {
        name: format_of(name, TensorInfo(size, "BF16", 0), quant)
        for name, size in shapes.items()
        if len(size) == 2
    }


def fill_groups(weight: GroupedWeight) -> None:
    """Random values with a scale that gives them the spread of the plain weights, and no mean."""
    values, scales, minima, _ = weight.stored
    values.random_(0, 256)
    is_bytes = values.shape[1] == weight.shape[1]
    scales.fill_(0.5 / weight.shape[1] ** 0.5 / (74 if is_bytes else 4.6))
    if minima is not None:
        minima.copy_(scales * -7.5)


def decode_s(decoder: Decoder, n_streams: int, step: Callable[..., torch.Tensor], n_new: int) -> float:
    """Seconds of a greedy step of so many streams, ids brought to the host after each as the engine does."""
    caches = [decoder.new_cache(N_PROMPT + N_NEW + 1) for _ in range(n_streams)]
    prompt = list(range(100, 100 + N_PROMPT))
    news = [int(decoder.step([(cache, prompt, 1)])[0].argmax()) for cache in caches]
    step([(c, [new], 1) for c, new in zip(caches, news, strict=True)])
    torch.cuda.synchronize()
    begin_s = time.perf_counter()
    for _ in range(n_new):
        logits = step([(c, [new], 1) for c, new in zip(caches, news, strict=True)])
        news = logits.argmax(dim=-1).tolist()
    return (time.perf_counter() - begin_s) / n_new


def figures_of(arch: ArchConfig, stored: str, copy: float) -> Iterator[Figure]:
    """Every row of one shape with weights kept in one way."""
    decoder = random_decoder(arch, stored)
    begin_s = time.perf_counter()
    decoder.capture(max(STREAMS))
    took_s, weights_gb = time.perf_counter() - begin_s, read_bytes(decoder) / 1e9
    note(f"{arch.family}, {stored}: {weights_gb:.1f} GB a step, captured in {took_s:.1f} s")
    for n in STREAMS:
        gb = weights_gb + n * (N_PROMPT + N_NEW / 2) * arch.kv_bytes_per_token(2) / 1e9
        ways = [("neuron", decoder.step, N_NEW - 1)]
        if stored == "bfloat16":
            ways.append(("plain torch loop", lambda parts: plain(decoder, parts), N_SLOW))
        for what, step, n_new in ways:
            times = [decode_s(decoder, n, step, n_new) for _ in range(ROUNDS)]
            rates, gb_s = [n / s for s in times], gb / median(times)
            yield _figure(arch, f"decode, {what}", n, rates, stored, gb_s, copy)
    for n_tokens in N_PREFILLS:
        rates = [n_tokens / prefill_s(decoder, n_tokens) for _ in range(ROUNDS)]
        yield _figure(arch, f"prefill of {n_tokens:,} in one piece, neuron", 1, rates, stored)


def read_bytes(decoder: Decoder) -> int:
    """Bytes of weights that a step must read: all but an embedding of its own, of which it reads a row."""
    embedding = 0 if decoder.arch.tied_embeddings else decoder.embedding.nbytes
    return sum(view.nbytes for _, view in decoder.named_views()) - embedding


def plain(decoder: Decoder, parts: Any) -> torch.Tensor:
    """The pass that takes any batch, without recorded steps."""
    return decoder.forward(make_batch(parts, CUDA))


def prefill_s(decoder: Decoder, n_tokens: int) -> float:
    """Seconds of a prompt in one piece."""
    cache = decoder.new_cache(n_tokens)
    prompt = [i % decoder.arch.vocab_size for i in range(n_tokens)]

    def run() -> None:
        decoder.step([(cache, prompt, 1)])
        torch.cuda.synchronize()

    return timed(run)


def transformers_figures(arch: ArchConfig) -> Iterator[Figure]:
    """The same shape in transformers: one stream, a loop of its forward passes with its dynamic cache."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=arch.vocab_size,
        hidden_size=arch.hidden_size,
        intermediate_size=arch.mlp.intermediate,
        num_hidden_layers=len(arch.layers),
        num_attention_heads=arch.attention.n_heads,
        num_key_value_heads=arch.attention.n_kv_heads,
        tie_word_embeddings=False,
    )
    with torch.device(CUDA):
        torch.set_default_dtype(torch.bfloat16)
        model: Any = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    rates = []
    for _ in range(ROUNDS):
        with torch.inference_mode():
            out = model(
                torch.arange(100, 100 + N_PROMPT, device=CUDA)[None], use_cache=True, logits_to_keep=1
            )
            torch.cuda.synchronize()
            begin_s = time.perf_counter()
            for _ in range(N_SLOW):
                new = int(out.logits[0, -1].argmax())
                ids = torch.tensor([[new]], device=CUDA)
                out = model(ids, None, None, out.past_key_values, use_cache=True, logits_to_keep=1)
            torch.cuda.synchronize()
            rates.append(N_SLOW / (time.perf_counter() - begin_s))
    yield _figure(arch, "decode, transformers", 1, rates)


def engine_figures(arch: ArchConfig) -> Iterator[Figure]:
    """The whole engine on a model from disk: its thread, scheduler, samplers and text, without HTTP."""
    greedy = Sampling(temperature=0)
    ways = {
        "greedy": (greedy, True),
        "greedy, each step read before the next is launched": (greedy, False),
        "drawn, top-p 0.9": (Sampling(temperature=1, top_p=0.9), True),
    }
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        save(random_decoder(arch), Path(folder))
        for what, (sampling, ahead) in ways.items():
            for n in (1, max(STREAMS)):
                rates = asyncio.run(engine_tok_s(Path(folder), n, sampling, ahead))
                yield _figure(arch, f"answers of {2 * N_NEW} tokens by neuron's engine, {what}", n, rates)


def save(decoder: Decoder, folder: Path) -> None:
    """The decoder in the hub's layout, with a tokenizer of bytes."""
    arch = decoder.arch
    save_file(
        {name: view.contiguous() for name, view in decoder.named_views() if isinstance(view, torch.Tensor)},
        folder / "model.safetensors",
    )
    config = {
        "model_type": "llama",
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.hidden_size,
        "intermediate_size": arch.mlp.intermediate,
        "num_hidden_layers": len(arch.layers),
        "num_attention_heads": arch.attention.n_heads,
        "num_key_value_heads": arch.attention.n_kv_heads,
        "max_position_embeddings": arch.context,
        "rms_norm_eps": arch.norm_eps,
        "rope_theta": 5e5,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer().save(str(folder / "tokenizer.json"))


async def engine_tok_s(folder: Path, n: int, sampling: Sampling, ahead: bool) -> list[float]:
    """Tokens per second of so many streams together in each round, prompts included."""
    engine = Engine(Settings(device="cuda", max_in_flight=max(STREAMS)))
    await engine.start()
    await engine.load(LoadSpec(model_id="model"), lambda report: folder)
    if not ahead:
        engine._models.serving("model").slot.ahead = None

    async def one(number: int) -> int:
        asked = Generation(
            model_id="model",
            prompt=TokenPrompt(ids=tuple(4 + (i + number) % 200 for i in range(16))),
            request_id=str(number),
            sampling=replace(sampling, seed=number),
            max_tokens=2 * N_NEW,
            ignore_eos=True,
        )
        async with await engine.submit(asked) as stream:
            return sum([e.usage.completion_tokens async for e in stream if isinstance(e, Finished)])

    rates = []
    for _ in range(ROUNDS):
        begin_s = time.perf_counter()
        n_tokens = sum(await asyncio.gather(*(one(number) for number in range(n))))
        rates.append(n_tokens / (time.perf_counter() - begin_s))
    await engine.close()
    return rates


def _figure(
    arch: ArchConfig,
    what: str,
    n: int,
    rates: list[float],
    stored: str = "bfloat16",
    gb_s: float | None = None,
    copy: float = 0,
) -> Figure:
    figure = Figure(
        model=arch.family,
        weights=stored,
        what=what,
        streams=n,
        tok_s=median(rates),
        spread=(min(rates), max(rates)),
        gb_s=gb_s,
        of_copy=gb_s / copy if gb_s else None,
    )
    note(str(figure))
    return figure


def note(text: str) -> None:
    print(text, flush=True)


def table(figures: list[Figure]) -> str:
    """The rows in Markdown."""
    head = ("model", "", "streams", "tok/s", "GB/s", "of the copy")
    lines = [head, ("---",) * len(head)]
    for f in figures:
        rate = f"{f.tok_s:,.0f} ({f.spread[0]:,.0f}-{f.spread[1]:,.0f})"
        read = f"{f.gb_s:,.0f}" if f.gb_s else ""
        lines.append(
            (
                f"{f.model}, {f.weights}",
                f.what,
                str(f.streams),
                rate,
                read,
                f"{f.of_copy:.0%}" if f.of_copy else "",
            )
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def facts(copy: float, commit: str) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "device": torch.cuda.get_device_name(CUDA),
        "copy on the device, bytes read and written": f"{copy:,.0f} GB/s",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
    }


def parts(shapes: Sequence[str], stored: Sequence[str], copy: float) -> Iterator[Iterator[Figure]]:
    """What is measured, one model in memory at a time."""
    for arch in (arch for arch in SHAPES if arch.family in shapes):
        yield from (figures_of(arch, width, copy) for width in stored)
        if "bfloat16" in stored:
            yield transformers_figures(arch)
            if arch.family == "1.7B":
                yield engine_figures(arch)


def main() -> None:
    """Measure everything, or what is named, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", default="working tree")
    parser.add_argument("--out", type=Path, default=OUT)
    names = [arch.family for arch in SHAPES]
    parser.add_argument("--shapes", nargs="+", choices=names, default=names[1:], metavar="SHAPE")
    parser.add_argument("--stored", nargs="+", choices=STORED, default=STORED, metavar="WIDTH")
    said = parser.parse_args()
    copy = copy_gb_s()
    about = facts(copy, said.commit)
    note(str(about))
    figures: list[Figure] = []
    for rows in parts(said.shapes, said.stored, copy):
        figures += rows
        gc.collect()
        torch.cuda.empty_cache()
    said.out.mkdir(parents=True, exist_ok=True)
    told = "\n".join(f"- {key}: {value}" for key, value in about.items())
    text = f"# Speed on a GPU\n\n{__doc__.split(chr(10), 2)[2].strip()}\n\n{told}\n\n{table(figures)}\n"
    (said.out / "gpu.md").write_text(text)
    (said.out / "gpu.json").write_text(
        json.dumps({**about, "rows": [asdict(f) for f in figures]}, indent=1) + "\n"
    )
    print(table(figures))


if __name__ == "__main__":
    main()
