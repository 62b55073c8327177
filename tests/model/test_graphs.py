"""Recorded decode steps with the calls of CUDA stood in for: tables, lengths and ids that are read later.

What is recorded is computed by the plain pass here, from the table alone; `interpreted_kernels` and `tests/gpu`
have the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from neuron.engine.race import Draws
from neuron.files import ModelFolder
from neuron.model import graphs
from neuron.model.cache import SequenceCache
from neuron.model.decoder import Decoder, make_batch
from neuron.model.graphs import DecodeGraphs
from neuron.model.load import load_decoder
from neuron.model.native import Draw
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from tests.support.tiny_models import CASES, save_tiny

CPU = torch.device("cpu")
N_NEW = 8
PROMPTS = [[5 + i * (k + 3) % 200 for i in range(4 + 3 * k)] for k in range(3)]


class Recording:
    """A graph: what was called while it was recorded is called again."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def replay(self) -> None:
        for call in self.calls:
            call()


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """A decoder with recorded steps for up to four sequences."""
    save_tiny(CASES[0], tmp_path)
    checkpoint = SafetensorsCheckpoint(ModelFolder(tmp_path))
    decoder = load_decoder(checkpoint, device=CPU, dtype=torch.float32)
    caches: dict[int, SequenceCache] = {}
    new_cache, empty, advance = decoder.new_cache, torch.empty, graphs.advance
    recording: list[Recording] = []

    def noted(capacity: int) -> SequenceCache:
        cache = new_cache(capacity)
        return caches.setdefault(cache.data.data_ptr(), cache)

    def row(address: int, capacity: int, length: int, token: int) -> tuple[SequenceCache, list[int], int]:
        cache = copy(caches[address])
        assert 0 <= length < capacity == cache.capacity
        cache.length = length
        return cache, [token], 1

    def again(compute: Callable[[], Tensor]) -> Tensor:
        """Compute now, and into the same memory with every replay."""
        out = compute()
        for one in recording:
            one.calls.append(lambda: out.copy_(compute()))
        return out

    @contextmanager
    def record(graph: Recording, **_: Any) -> Iterator[None]:
        recording.append(graph)
        yield
        recording.clear()

    def decode(of: Decoder, table: Tensor) -> Tensor:
        return again(lambda: of.forward(make_batch([row(*of_row) for of_row in table.t().tolist()], CPU)))

    def choose(logits: Tensor, table: Tensor) -> Tensor:
        return again(lambda: advance(logits, table))

    monkeypatch.setattr(decoder, "new_cache", noted)
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **kw: empty(*shape, **kw))
    monkeypatch.setattr(graphs, "decode", decode)
    monkeypatch.setattr(graphs, "advance", choose)
    done = SimpleNamespace(synchronize=lambda: None, record=lambda stream: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda: done)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    monkeypatch.setattr(torch.cuda, "graph", record)
    decoder.graphs = DecodeGraphs(decoder, 4)
    return decoder


def begun(decoder: Decoder) -> tuple[DecodeGraphs, list[SequenceCache], list[int]]:
    """Caches that hold the prompts, and the likeliest ids behind them."""
    assert decoder.graphs is not None
    caches = [decoder.new_cache(len(ids) + N_NEW) for ids in PROMPTS]
    firsts = [int(plain(decoder, [(c, ids, 1)]).argmax()) for c, ids in zip(caches, PROMPTS, strict=True)]
    return decoder.graphs, caches, firsts


def plain(decoder: Decoder, parts: Any) -> Tensor:
    return decoder.forward(make_batch(parts, CPU))


def chosen_one_by_one(decoder: Decoder, choose: Callable[[Tensor], list[int]]) -> list[list[int]]:
    """The ids of every step when each is read before the next."""
    _, caches, ids = begun(decoder)
    steps = []
    for _ in range(N_NEW - 1):
        ids = choose(plain(decoder, [(cache, [i], 1) for cache, i in zip(caches, ids, strict=True)]))
        steps.append(ids)
    return steps


HOW = [Draw(0.8, 0.9, 0.0, 0, 1, 1), Draw(0.0, 1.0, 0.0, 0, 2, 1), Draw(1.0, 1.0, 0.1, 40, 3, 1)]


@pytest.mark.parametrize("drawn", [False, True])
@torch.inference_mode()
def test_ids_that_are_read_a_step_later_are_those_that_are_read_at_once(
    decoder: Decoder, drawn: bool
) -> None:
    at_once = Draws(HOW, CPU)
    want = chosen_one_by_one(
        decoder,
        lambda logits: (at_once(logits, logits.argmax(-1)) if drawn else logits.argmax(-1)).tolist(),
    )
    recorded, caches, firsts = begun(decoder)
    draws = Draws(HOW, CPU) if drawn else None
    launched, got = recorded.launch(firsts, caches, draws), []
    for _ in range(N_NEW - 2):
        launched, before = recorded.launch_next(caches, draws), launched
        got.append(before.read())
    assert [*got, launched.read()] == want
    assert [cache.length for cache in caches] == [len(ids) + N_NEW - 1 for ids in PROMPTS]


@torch.inference_mode()
def test_steps_too_many_stay_within_the_caches(decoder: Decoder) -> None:
    recorded, caches, firsts = begun(decoder)
    recorded.launch(firsts, caches)
    for _ in range(2 * N_NEW):
        recorded.launch_next(caches)  # the rows assert it


@torch.inference_mode()
def test_rows_beside_prompts_are_recorded_ones(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    _, caches, ids = begun(decoder)
    beside = [([9, 10, 11], 1), ([4, 5, 6], 0)]
    parts = [(cache, [i], 1) for cache, i in zip(caches, ids, strict=True)]
    parts += [(decoder.new_cache(8), prompt, n) for prompt, n in beside]
    want = plain(decoder, [(copy(cache), new, n) for cache, new, n in parts])
    sizes, step = [], DecodeGraphs.step

    def noted(self: DecodeGraphs, tokens: Any, of: Any) -> Tensor:
        sizes.append(len(tokens))
        return step(self, tokens, of)

    monkeypatch.setattr(DecodeGraphs, "step", noted)
    got = decoder.step(parts)
    assert sizes == [3]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert [cache.length for cache, _, _ in parts] == [len(p) + 1 for p in PROMPTS] + [3, 3]
