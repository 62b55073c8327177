"""Engines without a server: decoding and prefill of each width, beside the same file in llama.cpp; growth."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.lines import Answer, Child, child
from benchmarks.models import WIDTHS, folder, gguf
from benchmarks.report import Curve, Part, Row, faster
from benchmarks.texts import ids

ROUNDS = 5
N_PROMPT, N_NEW, N_PREFILL = 32, 128, 512
CONTEXTS = (32, 512, 1000, 2000, 4000)
AT_LEAST = {"F16": 1.2, "Q8_0": 1.0, "Q4_0": 1.0, "Q4_1": 1.0}

Rounds = dict[str, list[Answer]]


def width(name: str) -> Part:
    """One stream and a prompt of 512 on one GGUF file."""
    with ExitStack() as stack:
        engines = {engine: stack.enter_context(child(engine, gguf(name))) for engine in ("neuron", "llama")}
        decoded = rounds(engines, N_PROMPT, N_NEW)
        prefilled = rounds(engines, N_PREFILL, 1)
        rows = [
            faster(f"decode, {name}, bare loop", "tok/s", *decode_rates(decoded), AT_LEAST[name]),
            faster(f"prefill of {N_PREFILL} tokens, {name}", "tok/s", *prefill_rates(prefilled, N_PREFILL)),
            Row(
                f"load GGUF {name} until the first token",
                "s",
                [engines["neuron"].load_s],
                {"llama.cpp": [engines["llama"].load_s]},
            ),
            Row(
                f"peak memory of the bare loop, {name}",
                "MiB",
                [engines["neuron"].peak_mib()],
                {"llama.cpp": [engines["llama"].peak_mib()]},
            ),
        ]
    return Part(rows)


def prefill() -> Part:
    """A prompt of 512 beside every way that the peers have; decoding of transformers on the way."""
    with ExitStack() as stack:
        start = stack.enter_context
        engines = {"neuron": start(child("neuron", gguf("Q4_1")))}
        for dtype in ("float32", "bfloat16"):
            engines[f"transformers {dtype}"] = start(child("transformers", folder("float32"), dtype))
        decoded = rounds(engines, N_PROMPT, N_NEW // 4, n_rounds=3)
        engines |= {f"llama.cpp {name}": start(child("llama", gguf(name))) for name in WIDTHS}
        prefilled = rounds(engines, N_PREFILL, 1, n_rounds=3)
    return Part(
        [
            faster(
                f"prefill of {N_PREFILL} tokens, Q4_1, beside the best peer",
                "tok/s",
                *prefill_rates(prefilled, N_PREFILL),
                1.3,
            ),
            faster("decode, Q4_1, beside transformers", "tok/s", *decode_rates(decoded)),
        ]
    )


def growth() -> Part:
    """Time of a token against the context before it, and of a prompt against its length."""
    with ExitStack() as stack:
        start = stack.enter_context
        engines = {engine: start(child(engine, gguf("Q4_1"))) for engine in ("neuron", "llama")}
        rounds(engines, N_PROMPT, 17, n_rounds=1)
        said = [rounds(engines, n, 17, n_rounds=1, warm_up=False) for n in CONTEXTS]
    decode = {names_of(e): [median(1e3 / a.decode_tok_s for a in at[e]) for at in said] for e in engines}
    prompt = {names_of(e): [median(a.prefill_s for a in at[e]) for at in said] for e in engines}
    return Part(
        [
            faster(f"prefill of {n:,} tokens, Q4_1", "tok/s", *prefill_rates(at, n))
            for n, at in zip(CONTEXTS, said, strict=True)
            if n != N_PREFILL
        ],
        [
            Curve("Decoding by context", "tokens", CONTEXTS, "ms a token", decode),
            Curve("Prefill by length", "tokens", CONTEXTS, "s", prompt),
        ],
    )


def rounds(
    engines: dict[str, Child], n_prompt: int, n_new: int, *, n_rounds: int = ROUNDS, warm_up: bool = True
) -> Rounds:
    """The engines in turn, each round on another piece of the text; with a warm-up, the first does not count."""
    said: Rounds = {name: [] for name in engines}
    for at in range(n_rounds + warm_up):
        for name, engine in engines.items():
            said[name].append(engine.ask(ids(n_prompt, begin=100 * at), n_new))
    return {name: answers[int(warm_up) :] for name, answers in said.items()}


def decode_rates(said: Rounds) -> tuple[list[float], dict[str, list[float]]]:
    """neuron's, and those of the others by name."""
    return split({name: [a.decode_tok_s for a in answers] for name, answers in said.items()})


def prefill_rates(said: Rounds, n: int) -> tuple[list[float], dict[str, list[float]]]:
    """The same of prompts of ``n`` tokens."""
    return split({name: [n / a.prefill_s for a in answers] for name, answers in said.items()})


def split(rates: dict[str, list[float]]) -> tuple[list[float], dict[str, list[float]]]:
    """neuron's, and the others'."""
    ours = rates.pop("neuron")
    return ours, {names_of(name): values for name, values in rates.items()}


def names_of(engine: str) -> str:
    """What a reader calls it."""
    return "llama.cpp" if engine == "llama" else engine
