"""A node by itself: HTTP and command line on top of the bare loop, known prompts, pace, many requests, starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles
from typing import NamedTuple

from benchmarks.lines import child
from benchmarks.models import gguf
from benchmarks.report import Curve, Part, Row, at_most, faster, ratio_of, within
from benchmarks.served import KEEP_NOTHING
from benchmarks.streaming import Server, Streamed, ask, neuron, stream
from benchmarks.texts import text_model, words
from tests.support.node_process import NEURON, clean_env, node

ROUNDS = 5
N_NEW = 256
WIDTH = "Q4_1"
BEHIND_S = 0.5
"""How long a stream is watched when the request beside it has ended."""
QUESTION = "Write a very long story about a lighthouse keeper who finds a letter in a bottle on the beach."


def overhead() -> Part:
    """The same answer by the bare loop, over HTTP and by the command line."""
    prompt = text_model().encode_chat([{"role": "user", "content": QUESTION}])
    bare, served, typed = [], [], []
    with child("neuron", gguf(WIDTH)) as engine, neuron(gguf(WIDTH)) as server:
        for _ in range(ROUNDS + 1):
            bare.append(engine.ask(prompt, N_NEW).decode_tok_s)
            served.append(ask(server, QUESTION, N_NEW).tok_s)
            typed.append(by_command_line(server))
    beside = {"bare loop": bare[1:]}
    return Part(
        [
            faster(f"one stream over HTTP, {WIDTH}, beside the bare loop", "tok/s", served[1:], beside, 0.95),
            faster(f"`neuron chat`, {WIDTH}, beside the bare loop", "tok/s", typed[1:], beside, 0.95),
        ]
    )


def by_command_line(server: Server) -> float:
    """Tokens per second between the first and the last text that a pipe behind ``neuron chat`` sees."""
    asked = ["chat", server.model, QUESTION, "--temperature", "0", "--max-tokens", N_NEW, "--usage"]
    command = [*NEURON, *map(str, asked), "--host", f"http://{server.host}"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=clean_env(), **piped) as process:  # type: ignore[call-overload]
        arrived_s = []
        while text := os.read(process.stdout.fileno(), 1 << 16):
            arrived_s += [time.perf_counter()] if text.strip() else []
        usage = process.stderr.read().decode()
    found = re.search(r"(\d+) answer tokens", usage)
    if found is None:
        sys.exit(f"no count in {usage!r}")
    return (int(found[1]) - 1) / (arrived_s[-1] - arrived_s[0])


def prefix() -> Part:
    """A prompt whose first 1,000 tokens an earlier one had, beside that one."""
    cold, known = [], []
    with neuron(gguf(WIDTH)) as server:
        stream(server, words(1000), 2)
        for at in range(ROUNDS):
            text = f"{time.time()}: {words(1000, 500 * at)}"
            cold.append(ask(server, f"{text}\n\nWho is it about?", 2).first_ms)
            known.append(ask(server, f"{text}\n\nWhere does it take place?", 2).first_ms)
    what = "time to first token, 1,000 tokens of the prompt known"
    return Part([within(what, "ms", known, {"cold": cold}, 0.10)])


class Paced(NamedTuple):
    """Times between the texts of a running stream, in ms: before, while and after a long request."""

    before: list[float]
    arriving: list[float]
    ended: list[float]


def pace() -> Part:
    """A running stream while a prompt of 4,000 tokens arrives, and when its answer has ended."""
    cold, kept = paced(*KEEP_NOTHING), paced()
    ratios = [(p99(each.arriving), median(each.arriving), median(each.before)) for each in cold]
    before, ended = [median(each.before) for each in kept], [max(each.ended) for each in kept]
    what, arrives = "between texts of a running stream", "while a 4,000-token prompt arrives"
    return Part(
        [
            at_most(f"{what} {arrives}, 99th percentile in medians", "×", [a / b for a, b, _ in ratios], 3),
            Row(
                f"{what} {arrives}, 99th percentile beside the median before",
                "×",
                [a / c for a, _, c in ratios],
            ),
            Row(f"{what}, median, meanwhile", "ms", [b for _, b, _ in ratios]),
            Row(f"{what}, median, before", "ms", [c for _, _, c in ratios]),
            Row(
                f"{what}, longest when that request ends, with the default prefix cache",
                "ms",
                ended,
                {"median before": before},
                ratio_of(ended, before),
            ),
        ]
    )


def paced(*flags: str) -> list[Paced]:
    """Three rounds on a node of its own."""
    rounds = []
    with neuron(gguf(WIDTH), *flags) as server:
        stream(server, words(100), 16)
        for at in range(3):
            running, arriving = beside(server, words(4000, 100 * at))
            begin_s, first_s = arriving.begin_s, arriving.arrived_s[0]
            # the text that came with the last of the prompt may be read a moment before its first token
            spans = (0, begin_s), (begin_s, first_s), (first_s - 0.005, arriving.arrived_s[-1] + BEHIND_S)
            rounds.append(Paced(*(between_ms(running, *span) for span in spans)))
    return rounds


def p99(values: Sequence[float]) -> float:
    """The 99th percentile, as one of the values or between two."""
    return quantiles(values, n=100, method="inclusive")[98]


def beside(server: Server, prompt: str) -> tuple[Streamed, Streamed]:
    """A stream that runs, and a request that comes after half a second; the first is cut off a while after that."""
    done = threading.Event()
    said: list[Streamed] = []
    client = threading.Thread(target=lambda: said.append(ask(server, QUESTION, 4000, until=done)))
    client.start()
    time.sleep(0.5)
    arriving = stream(server, prompt, 8)
    time.sleep(BEHIND_S)
    done.set()
    client.join()
    return said[0], arriving


def between_ms(running: Streamed, begin_s: float, end_s: float) -> list[float]:
    """Times between the texts that arrived then."""
    arrived_s = [at_s for at_s in running.arrived_s if begin_s <= at_s <= end_s]
    return [1e3 * (b - a) for a, b in pairwise(arrived_s)]


def requests() -> Part:
    """Speed and memory of a node over 200 requests, in tens."""
    speeds_ms, memory_mib = [], []
    with neuron(gguf(WIDTH), *KEEP_NOTHING) as server:
        assert server.node is not None
        for at in range(20):
            said = [stream(server, words(32, 100 * at + i), 17) for i in range(10)]
            speeds_ms.append(median(1e3 / s.tok_s for s in said))
            memory_mib.append(server.node.rss_mb())
    xs = [10 * (at + 1) for at in range(20)]
    late = median(speeds_ms[-3:]), median(speeds_ms[1:4])
    return Part(
        [
            within("a token after 170-200 requests", "ms", [late[0]], {"after 10-40": [late[1]]}, 1.05),
            at_most("memory that 180 further requests took", "MiB", [memory_mib[-1] - memory_mib[1]], 16),
        ],
        [
            Curve("Decoding by requests served", "requests", xs, "ms a token", {"neuron": speeds_ms}),
            Curve("Memory by requests served", "requests", xs, "MiB", {"neuron": memory_mib}),
        ],
    )


def starts() -> Part:
    """Short commands from start to end, in turn, and a Python that does nothing."""
    elapsed: dict[str, list[float]] = {"pass": [], "help": [], "health": []}
    with node() as running:
        commands = {
            "pass": [sys.executable, "-c", "pass"],
            "help": [*NEURON, "--help"],
            "health": [*NEURON, "health", "--host", running.url],
        }
        for _ in range(10):
            for name, command in commands.items():
                begin_s = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=clean_env())
                elapsed[name].append(1e3 * (time.perf_counter() - begin_s))
    nothing = median(elapsed.pop("pass")[1:])
    more = {name: [ms - nothing for ms in times[1:]] for name, times in elapsed.items()}
    return Part(
        [
            at_most("`neuron --help`, more than `python -c pass`", "ms", more["help"], 200),
            at_most("`neuron health`, more than `python -c pass`", "ms", more["health"], 400),
            Row("`python -c pass`", "ms", [nothing]),
        ]
    )
