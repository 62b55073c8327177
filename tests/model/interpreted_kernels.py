"""The kernels in Triton, computed by its interpreter on a CPU, beside torch; `test_kernels` runs this file.

The interpreter multiplies bfloat16 as whole numbers and cuts off instead of rounding, so the dtypes are float32 and
float16. A product is off by at most `ROUNDING` of the sum of its terms' sizes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from neuron.model import graphs, grouped, grouped_kernels, linear, load
from neuron.model.decoder import Decoder, make_batch
from neuron.model.grouped import LAYOUTS, Groups
from tests.model.test_grouped import SHAPES, error, grouped_weight
from tests.model.test_native import OneMatrix
from tests.model.test_packed import stored
from tests.support.tiny_models import CASES, VOCAB

ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3}
TOLERANCE = 2e-4
"""Of logits in float32."""

STEPS = (("llama-tied", "Q8_0"), ("llama-biases", "Q4_0"), ("qwen3", "Q4_1"), ("mistral", "F32"))
"""Families and formats; all of them together take minutes."""

torch_alone = torch.inference_mode()


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fmt", LAYOUTS)
@torch_alone
def test_products_of_1_to_64_rows(
    fmt: str, shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    checkpoint, n_out = OneMatrix(fmt, *shape), shape[0]
    weight, plain = grouped_weight(checkpoint, fmt, dtype), checkpoint.read("w").float()
    for bias, splits in ((None, 8), (torch.randn(n_out).to(dtype), 1), (torch.randn(n_out).to(dtype), 2)):
        monkeypatch.setattr(grouped_kernels, "n_splits", lambda *_, splits=splits: splits)
        for n in (1, 2, 17, 64):
            x, y = torch.randn(n, shape[1]).to(dtype), torch.full((n, n_out + 3), torch.nan, dtype=dtype)
            grouped_kernels.product(x, weight.stored, bias, y[:, :n_out])
            matrix = plain if n == 1 else plain.to(dtype)
            wanted = torch.zeros(n_out) if bias is None else bias
            assert error(x, matrix, wanted, y[:, :n_out]) < ROUNDING[dtype]
            assert y[:, n_out:].isnan().all(), "nothing is written beyond the outputs"


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fmt", LAYOUTS)
def test_unpacked_numbers_are_torchs_bit_for_bit(
    fmt: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    checkpoint = OneMatrix(fmt, *shape)
    out = torch.full((shape[0] + 1, shape[1]), torch.nan, dtype=dtype)
    grouped_kernels.unpack(grouped_weight(checkpoint, fmt, dtype).stored, out[: shape[0]])
    assert torch.equal(out[: shape[0]], checkpoint.read("w").to(dtype))
    assert out[shape[0] :].isnan().all()


def test_a_split_has_a_power_of_two_and_fills_the_processors() -> None:
    assert [grouped_kernels.n_splits(n_out, 132) for n_out in (1, 4096, 6144, 28672)] == [8, 8, 4, 1]
    assert grouped_kernels.n_splits(128256, 132) == 1


@pytest.mark.parametrize(("name", "form"), STEPS)
@torch_alone
def test_a_decode_step_gives_the_logits_of_the_plain_pass(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_gpu = functools.partial(Groups, dtype=torch.float32)
    monkeypatch.setattr(load, "_layout", lambda device, dtype, quant: as_gpu)
    # plain weights lie row by row, as on a GPU
    monkeypatch.setattr(linear, "empty_weight", lambda *shape, device, dtype: torch.empty(shape, dtype=dtype))
    case = next(case for case in CASES if case.name == name)
    checkpoint = stored(case, form, tmp_path)
    decoder = load.load_decoder(checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    prompts = [torch.randint(3, VOCAB, (n,)).tolist() for n in (30, 7, 12)]
    want = [forward(decoder, ids)[-1] for ids in prompts]
    got = recorded(decoder, prompts, monkeypatch)
    torch.testing.assert_close(got, torch.stack(want), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(recorded(decoder, prompts[:1], monkeypatch), got[:1], atol=TOLERANCE, rtol=0)


def forward(decoder: Decoder, ids: list[int]) -> Tensor:
    """Logits [T, V] by the plain pass, in torch alone."""
    return decoder.forward(make_batch([(decoder.new_cache(len(ids)), ids, len(ids))], decoder.device))


def recorded(decoder: Decoder, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Logits [B, V] of the last tokens by what a graph would record."""
    caches = [decoder.new_cache(len(ids)) for ids in prompts]
    for cache, ids in zip(caches, prompts, strict=True):
        decoder.forward(make_batch([(cache, ids[:-1], 0)], decoder.device))
    rows = [
        (c.data.data_ptr(), c.capacity, c.length, ids[-1]) for c, ids in zip(caches, prompts, strict=True)
    ]
    with monkeypatch.context() as patch:
        patch.setattr(grouped, "runs_triton", lambda device: True)
        few = SimpleNamespace(multi_processor_count=2)
        patch.setattr(torch.cuda, "get_device_properties", lambda device: few)
        return graphs.decode(decoder, torch.tensor(rows).t().contiguous())
