"""A node beside llama.cpp's server, on the same files and prompts. Neither keeps anything of earlier prompts."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.models import gguf
from benchmarks.report import Part, Row, at_most, faster
from benchmarks.streaming import Server, llama, neuron, stream, together
from benchmarks.texts import words

ROUNDS = 5
N_PROMPT, N_NEW = 100, 128
KEEP_NOTHING = ("--prefix-cache-mb", "0")
NODE_MIB = 400
"""What a node may take beside weights and caches: Python, torch and HTTP."""


def width(name: str) -> Part:
    """One stream on one GGUF file."""
    with ExitStack() as stack:
        servers = both(stack, name)
        said = [[stream(s, words(N_PROMPT, 300 * at), N_NEW) for s in servers] for at in range(ROUNDS + 1)]
        ours, theirs = zip(*said[1:], strict=True)
        node = servers[0].node
        assert node is not None
        weights_mib = node.get(f"/models/{servers[0].model}").json()["vram_used_mb"]
        peak_mib = node.peak_rss_mb()
    first = [s.first_ms for s in ours], {"llama.cpp": [s.first_ms for s in theirs]}
    rates = [s.tok_s for s in ours], {"llama.cpp": [s.tok_s for s in theirs]}
    return Part(
        [
            faster(f"one stream over HTTP, {name}", "tok/s", *rates, 1.3),
            faster(f"time to first token over HTTP, {name}, prompt of ~{N_PROMPT}", "ms", *first),
            at_most(f"peak memory of the node, {name}", "MiB", [peak_mib], 1.15 * weights_mib + NODE_MIB),
            Row(f"load {name} over HTTP in a new node", "s", [servers[0].load_s]),
        ]
    )


def both(stack: ExitStack, name: str, n_slots: int = 8, context: int = 1024) -> tuple[Server, Server]:
    """The two servers with a file of this width."""
    file = gguf(name)
    ours = stack.enter_context(neuron(file, *KEEP_NOTHING))
    return ours, stack.enter_context(llama(file, n_slots, context))


def streams(n: int, least: float | None = None) -> Part:
    """So many clients at once."""
    prompts = [words(N_PROMPT, 300 * at) for at in range(n)]
    with ExitStack() as stack:
        servers = both(stack, "Q4_1")
        for server in servers:
            together(server, ["Hello"], 8)
        said = [[together(server, prompts, N_NEW) for server in servers] for _ in range(3)]
    ours, theirs = ([in_all for in_all, _ in answers] for answers in zip(*said, strict=True))
    first = [[median(s.first_ms for s in each) for _, each in answers] for answers in zip(*said, strict=True)]
    return Part(
        [
            faster(
                f"{n} streams at once over HTTP, in all, Q4_1", "tok/s", ours, {"llama.cpp": theirs}, least
            ),
            faster(
                f"time to first token of {n} streams at once, Q4_1", "ms", first[0], {"llama.cpp": first[1]}
            ),
        ]
    )


def prompts() -> Part:
    """Time to the first token of a prompt that nobody has seen."""
    rows = []
    with ExitStack() as stack:
        servers = both(stack, "Q4_1", 1, 4608)
        for server in servers:
            stream(server, words(N_PROMPT), 2)
        for n in (32, 512, 4000):
            said = [[stream(s, words(n, 50 * at), 2) for s in servers] for at in range(2)]
            ours, theirs = ([s.first_ms for s in answers] for answers in zip(*said, strict=True))
            what = f"time to first token over HTTP, prompt of {n:,}, Q4_1"
            rows.append(Row(what, "ms", ours, {"llama.cpp": theirs}, median(ours) / median(theirs)))
    return Part(rows)
