"""Weights of 8 and 4 bits on a GPU: the numbers of the file, products, recorded steps, memory by the plan.

The bounds: in float32 logits are those of a CPU on the unpacked weights, off by `TOLERANCE`, and greedy tokens are
the same. In bfloat16 a product is off by at most 2 % of the sum of its terms' sizes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuron.model import grouped
from neuron.model.decoder import Decoder
from neuron.model.grouped import LAYOUTS, MOST_ROWS, GroupedWeight, Groups, Scratch
from neuron.model.load import build, load_decoder
from neuron.model.packed import FORMATS, QUANTS
from tests.gpu.test_decoding import CUDA, TOLERANCE, plain, prompt
from tests.model.test_grouped import SHAPES, error
from tests.model.test_native import OneMatrix
from tests.model.test_packed import answers, stored, unpacked
from tests.support.tiny_models import CASES, Case

FORMS = [*LAYOUTS, *QUANTS]
SOME = [case for case in CASES if case.name in ("llama", "llama-biases", "llama-tied", "qwen3")]
ROUNDING = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def weight_of(checkpoint: OneMatrix, fmt: str, dtype: torch.dtype, device: torch.device) -> GroupedWeight:
    """The matrix of a checkpoint in groups."""
    weight = GroupedWeight.empty(FORMATS[fmt], *checkpoint.tensors["w"].shape, device, Scratch(dtype))
    weight.fill(checkpoint, "w")
    return weight


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (4097, 4096)], ids=str)
@pytest.mark.parametrize("fmt", LAYOUTS)
@torch.inference_mode()
def test_products_of_any_number_of_rows(fmt: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    checkpoint, n_out = OneMatrix(fmt, *shape), shape[0]
    weight, matrix = weight_of(checkpoint, fmt, dtype, CUDA), checkpoint.read("w").float()
    for bias in (None, torch.randn(n_out).to(dtype)):
        weight.bias = None if bias is None else bias.to(CUDA)
        for n in (1, 2, 16, 17, 64, 65):
            x, y = torch.randn(n, shape[1]).to(dtype), torch.full((n, n_out + 8), torch.nan, dtype=dtype)
            on_device = y.to(CUDA)
            weight.product(x.to(CUDA), on_device[:, :n_out])
            got, wanted = on_device.cpu(), torch.zeros(n_out) if bias is None else bias
            assert error(x, matrix, wanted, got[:, :n_out]) < ROUNDING[dtype]
            assert got[:, n_out:].isnan().all(), "nothing is written beyond the outputs"


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("fmt", LAYOUTS)
def test_numbers_are_those_of_the_file_in_every_way_to_unpack(fmt: str, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        checkpoint = OneMatrix(fmt, *shape)
        weight, want = weight_of(checkpoint, fmt, dtype, CUDA), checkpoint.read("w").to(dtype)
        out = torch.full(shape, torch.nan, dtype=dtype, device=CUDA)
        grouped.unpack(weight.stored, out)
        assert torch.equal(out.cpu(), want)
        assert torch.equal(weight.rows(torch.arange(shape[0], device=CUDA)).cpu(), want)


Loaded = tuple[Decoder, Decoder, Decoder]


PAIRS = [(case, form) for case in SOME for form in FORMS]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1]}")
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Unpacked on the CPU; on the GPU without graphs, and with graphs for up to 8 sequences."""
    folder = tmp_path_factory.mktemp("model")
    case, form = request.param
    without, captured = (loaded(case, form, folder, torch.float32) for _ in range(2))
    captured.capture(8)
    assert captured.graphs is not None
    return unpacked(without), without, captured


def loaded(case: Case, form: str, folder: Path, dtype: torch.dtype) -> Decoder:
    checkpoint = stored(case, form, folder)
    decoder = load_decoder(checkpoint, device=CUDA, dtype=dtype, quant=form if form in QUANTS else None)
    kept = {view.format.name for _, view in decoder.named_views() if not isinstance(view, Tensor)}
    assert QUANTS.get(form, form) in kept
    return decoder


@torch.inference_mode()
def test_logits_are_those_of_the_unpacked_weights(three: Loaded) -> None:
    for n in (2, MOST_ROWS, MOST_ROWS + 30):
        ids = prompt(n)
        want, *got = (plain(decoder, decoder.new_cache(n), ids) for decoder in three)
        for one in got:
            torch.testing.assert_close(one, want, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_tokens_with_graphs_and_without_are_those_of_the_cpu(three: Loaded) -> None:
    said = [answers(decoder, prompt(40))[1] for decoder in three]
    assert said[0] == said[1] == said[2]


@torch.inference_mode()
def test_recorded_steps_of_several_sequences(three: Loaded) -> None:
    on_cpu, _, on_gpu = three
    prompts = [prompt(10 + 3 * i, seed=i) for i in range(8)]
    for who in (range(3), range(8)):
        caches = [on_gpu.new_cache(64) for _ in who]
        for cache, i in zip(caches, who, strict=True):
            plain(on_gpu, cache, prompts[i][:-1])
        parts = [(cache, prompts[i][-1:], 1) for cache, i in zip(caches, who, strict=True)]
        got = on_gpu.step(parts).cpu()
        want = [plain(on_cpu, on_cpu.new_cache(64), prompts[i])[-1] for i in who]
        torch.testing.assert_close(got, torch.stack(want), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_in_bfloat16_logits_stay_close_to_float32(form: str, tmp_path: Path) -> None:
    decoder = loaded(SOME[0], form, tmp_path, torch.bfloat16)
    decoder.capture(1)
    exact = unpacked(decoder)
    ids = prompt(120)
    want = plain(exact, exact.new_cache(120), ids)[20:]
    cache = decoder.new_cache(120)
    plain(decoder, cache, ids[:20])
    got = torch.stack([decoder.step([(cache, [i], 1)])[0].cpu() for i in ids[20:]])
    divergence = torch.nn.functional.kl_div(
        got.log_softmax(-1), want.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert divergence < 2e-2


@pytest.mark.parametrize("fmt", LAYOUTS)
@torch.inference_mode()
def test_memory_is_that_of_the_plan(fmt: str, tmp_path: Path) -> None:
    small = loaded(SOME[0], "Q8_0", tmp_path, torch.bfloat16).arch
    arch = replace(
        small, hidden_size=2048, vocab_size=32768, mlp=replace(small.mlp, intermediate=8192), context=2048
    )
    names = [name for name, view in build_on("meta", arch, {}).named_views() if len(view.shape) == 2]
    formats = dict.fromkeys(names, FORMATS[fmt])
    plan = build_on("meta", arch, formats).weight_bytes()
    ones = torch.ones(64, 64, dtype=torch.bfloat16, device=CUDA)
    torch.mm(ones, ones)  # the library's workspace, which stays
    before = torch.cuda.memory_allocated(CUDA)
    decoder = build_on(CUDA, arch, formats)
    for _, view in decoder.named_views():
        for tensor in (view,) if isinstance(view, Tensor) else view.stored[:3]:
            if tensor is not None:
                tensor.zero_()
    plain(decoder, decoder.new_cache(70), [5] * 70)
    taken = torch.cuda.memory_allocated(CUDA) - before
    assert abs(taken - plan) < 0.01 * plan + (1 << 20)


def build_on(device: torch.device | str, arch: object, formats: dict[str, object]) -> Decoder:
    """A decoder with uninitialised weights."""
    groups = Groups(formats, torch.bfloat16)  # type: ignore[arg-type]
    decoder = build(arch, device=torch.device(device), dtype=torch.bfloat16, packing=groups)  # type: ignore[arg-type]
    assert isinstance(decoder, Decoder)
    return decoder
