"""The decoder on a GPU: the logits of the CPU, and a recorded decode step gives what the plain pass gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuron.engine.race import Draws
from neuron.files import ModelFolder
from neuron.model.cache import SequenceCache
from neuron.model.decoder import Decoder, make_batch
from neuron.model.load import load_decoder
from neuron.model.native import Draw
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from tests.support.tiny_models import CASES, VOCAB, save_tiny

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
TOLERANCE = 2e-4
"""Of logits in float32: sums in another order, and sine and exponential of another library."""

Loaded = tuple[Decoder, Decoder]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The same weights on the CPU and, with graphs for up to 8 sequences, on the GPU."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny(request.param, folder)
    on_cpu, on_gpu = (load(folder, device, torch.float32) for device in (CPU, CUDA))
    on_gpu.capture(8)
    assert on_gpu.graphs is not None
    return on_cpu, on_gpu


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> Decoder:
    return load_decoder(SafetensorsCheckpoint(ModelFolder(folder)), device=device, dtype=dtype)


def prompt(n: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (n,), generator=generator).tolist()


def plain(decoder: Decoder, cache: SequenceCache, ids: list[int]) -> torch.Tensor:
    """Logits [T, V] on the CPU, by the pass that takes any batch."""
    return decoder.forward(make_batch([(cache, ids, len(ids))], decoder.device)).cpu()


def test_logits_are_those_of_the_cpu(pair: Loaded) -> None:
    ids = prompt(60)
    on_cpu, on_gpu = (plain(decoder, decoder.new_cache(60), ids) for decoder in pair)
    torch.testing.assert_close(on_gpu, on_cpu, atol=TOLERANCE, rtol=0)


def test_a_recorded_step_gives_the_logits_of_the_plain_pass(pair: Loaded) -> None:
    ids = prompt(90)
    want = plain(pair[0], pair[0].new_cache(90), ids)
    cache = pair[1].new_cache(90)
    plain(pair[1], cache, ids[:20])
    got = [pair[1].step([(cache, [i], 1)])[0].cpu() for i in ids[20:]]
    torch.testing.assert_close(torch.stack(got), want[20:], atol=TOLERANCE, rtol=0)
    assert cache.length == 90


def test_sequences_join_and_leave_and_batches_are_filled_up(pair: Loaded) -> None:
    on_cpu, on_gpu = pair
    prompts = [prompt(10 + 3 * i, seed=i) for i in range(8)]
    caches = [on_gpu.new_cache(64) for _ in prompts]
    for cache, ids in zip(caches, prompts, strict=True):
        plain(on_gpu, cache, ids)
    taken: list[list[int]] = [[] for _ in prompts]
    got: list[list[torch.Tensor]] = [[] for _ in prompts]
    for step, who in enumerate(([0], [0, 1, 2], [2, 1], [3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], [7, 0])):
        new = {i: (7 * step + i) % VOCAB for i in who}
        logits = on_gpu.step([(caches[i], [new[i]], 1) for i in who]).cpu()
        for i, row in zip(who, logits, strict=True):
            taken[i].append(new[i])
            got[i].append(row)
    for ids, more, rows in zip(prompts, taken, got, strict=True):
        want = plain(on_cpu, on_cpu.new_cache(64), ids + more)[len(ids) :]
        torch.testing.assert_close(torch.stack(rows), want, atol=TOLERANCE, rtol=0)


def test_a_long_context_is_shared_among_processors_rightly(pair: Loaded) -> None:
    on_cpu, on_gpu = pair
    ids = prompt(700)
    want = plain(on_cpu, on_cpu.new_cache(700), ids)[-1]
    cache = on_gpu.new_cache(700)
    plain(on_gpu, cache, ids[:-1])
    got = on_gpu.step([(cache, ids[-1:], 1)])[0].cpu()
    torch.testing.assert_close(got, want, atol=5 * TOLERANCE, rtol=0)


def test_greedy_text_is_that_of_the_cpu(pair: Loaded) -> None:
    said = []
    for decoder in pair:
        cache, new, ids = decoder.new_cache(64), prompt(12), []
        for _ in range(40):
            new = [int(decoder.step([(cache, new, 1)])[0].argmax())]
            ids += new
        said.append(ids)
    assert said[0] == said[1]


def test_steps_launched_before_the_ids_of_the_last_are_read_choose_those_of_the_cpu(pair: Loaded) -> None:
    prompts, want, n_new = [prompt(9 + 7 * i, seed=i) for i in range(3)], [], 30
    for ids in prompts:
        cache, new, said = pair[0].new_cache(64), ids, []
        for _ in range(n_new):
            new = [int(pair[0].step([(cache, new, 1)])[0].argmax())]
            said += new
        want.append(said)
    graphs, caches = pair[1].graphs, [pair[1].new_cache(len(ids) + n_new) for ids in prompts]
    assert graphs is not None
    firsts = [int(pair[1].step([(c, ids, 1)])[0].argmax()) for c, ids in zip(caches, prompts, strict=True)]
    got, launched = [firsts], graphs.launch(firsts, caches)
    for _ in range(n_new - 2):
        launched, before = graphs.launch_next(caches), launched
        got.append(before.read())
    got.append(launched.read())
    assert [list(one) for one in zip(*got, strict=True)] == want


def test_a_step_ahead_waits_for_nothing_and_draws_what_a_cpu_draws(pair: Loaded) -> None:
    kinds = [(0.8, 0.9, 0.0, 0), (1.0, 1.0, 0.1, 40), (0.0, 1.0, 0.0, 0), (1.2, 1.0, 0.0, 0)]
    how = [Draw(*kind, seed, 1) for seed, kind in enumerate(kinds)]
    on_gpu, graphs = pair[1], pair[1].graphs
    assert graphs is not None
    caches = [on_gpu.new_cache(32) for _ in kinds]
    firsts = [
        int(on_gpu.step([(cache, prompt(8, seed), 1)])[0].argmax()) for seed, cache in enumerate(caches)
    ]
    logits: list[torch.Tensor] = []
    draws = Draws(how, CUDA)

    def choose(rows: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
        logits.append(rows.clone())
        return draws(rows, best)

    launched = [graphs.launch(firsts, caches, choose)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        launched.append(graphs.launch_next(caches, choose))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu = Draws(how, CPU)
    for one, rows in zip(launched, logits, strict=True):
        rows = rows.cpu()
        assert one.read() == on_cpu(rows, rows.argmax(-1)).tolist()


def test_in_bfloat16_the_recorded_step_stays_close_to_the_plain_pass(tmp_path: Path) -> None:
    save_tiny(CASES[0], tmp_path)
    decoder = load(tmp_path, CUDA, torch.bfloat16)
    decoder.capture(1)
    ids = prompt(120)
    want = plain(decoder, decoder.new_cache(120), ids)[20:]
    cache = decoder.new_cache(120)
    plain(decoder, cache, ids[:20])
    got = torch.stack([decoder.step([(cache, [i], 1)])[0].cpu() for i in ids[20:]])
    divergence = torch.nn.functional.kl_div(
        got.log_softmax(-1), want.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert divergence < 1e-2
    assert (got.argmax(-1) == want.argmax(-1)).float().mean() >= 0.95
