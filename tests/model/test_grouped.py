"""Weights in groups, as a GPU keeps them: the numbers of the file, and products by torch beside the CPU's kernels.

The bounds: in float32 a product is off by at most 2e-6 of the sum of its terms' sizes, the logits of a whole model
by at most `BOUND` of the largest, and greedy tokens are the same.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuron.errors import UnsupportedParameter
from neuron.files import ModelFolder
from neuron.model import grouped, load, native
from neuron.model.decoder import Decoder
from neuron.model.ggml_types import dequantize
from neuron.model.gguf_checkpoint import GgufCheckpoint
from neuron.model.grouped import LAYOUTS, GroupedWeight, Groups, Scratch
from neuron.model.linear import Linear
from neuron.model.load import blueprint, load_decoder
from neuron.model.native_step import MOST_ROWS
from neuron.model.packed import FORMATS, QUANTS, PackedWeight
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from tests.model.test_native import OneMatrix
from tests.model.test_packed import BOUND, answers, stored, unpacked
from tests.support.gguf_files import write_gguf
from tests.support.tiny_models import CASES, VOCAB, Case, save_tiny

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
SHAPES = ((1, 32), (3, 64), (70, 96), (9, 2144))

torch_alone = torch.inference_mode()


def grouped_weight(checkpoint: OneMatrix, fmt: str, dtype: torch.dtype = torch.float32) -> GroupedWeight:
    """The matrix of a checkpoint in groups."""
    weight = GroupedWeight.empty(FORMATS[fmt], *checkpoint.tensors["w"].shape, CPU, Scratch(dtype))
    weight.fill(checkpoint, "w")
    return weight


def error(x: Tensor, matrix: Tensor, bias: Tensor, y: Tensor) -> float:
    """The largest difference of y to ``x Wᵀ + b``, as a part of the sum of the terms' sizes."""
    x, matrix, bias = x.double(), matrix.double(), bias.double()
    size = x.abs() @ matrix.abs().t() + bias.abs()
    return float(((y - (x @ matrix.t() + bias)).abs() / size).max())


@pytest.mark.parametrize("fmt", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numbers_are_those_of_the_file_in_its_bytes(fmt: str, shape: tuple[int, int]) -> None:
    checkpoint = OneMatrix(fmt, *shape)
    weight, plain = grouped_weight(checkpoint, fmt), checkpoint.read("w")
    assert torch.equal(weight.stored.numbers(), plain)
    assert weight.nbytes == checkpoint.tensors["w"].n_bytes
    ids = torch.randint(shape[0], (9,))
    assert torch.equal(weight.rows(ids), plain[ids])
    assert grouped_weight(checkpoint, fmt, torch.bfloat16).rows(ids).dtype == torch.bfloat16


@pytest.mark.parametrize("fmt", LAYOUTS)
@pytest.mark.parametrize("small", [False, True], ids=["whole", "pieces"])
@torch_alone
def test_products_are_those_of_the_processors_kernels(
    fmt: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        monkeypatch.setattr(grouped, "SCRATCH_ITEMS", 100 * 96)
        monkeypatch.setattr(grouped, "PIECE_ITEMS", 7 * 96)
    torch.manual_seed(0)
    for n_out, n_in in ((1, 32), (33, 64), (1000, 96)):
        checkpoint = OneMatrix(fmt, n_out, n_in)
        ours, bias = grouped_weight(checkpoint, fmt), torch.randn(n_out)
        ours.bias = bias
        for n in (0, 1, 2, 64, 65, 200):
            x, y = torch.randn(n, n_in), torch.full((n, n_out + 3), torch.nan)
            ours.product(x, y[:, :n_out])
            assert y[:, n_out:].isnan().all(), "nothing is written beyond the outputs"
            assert not n or error(x, checkpoint.read("w"), bias, y[:, :n_out]) < 1e-6
            if native.library() is not None:
                theirs = PackedWeight(FORMATS[fmt], n_out, n_in, CPU)
                theirs.bias = bias
                theirs.fill(checkpoint, "w")
                want = torch.empty(n, n_out)
                theirs.product(x, want)
                most = 1e-4 if n > MOST_ROWS and native.rounds() else 1e-6
                assert not n or error(x, checkpoint.read("w"), bias, want) < most


@pytest.mark.parametrize("quant", QUANTS)
def test_quantising_on_load_gives_the_blocks_that_the_cpu_gets(quant: str) -> None:
    checkpoint = OneMatrix("BF16", 50, 96)
    fmt = FORMATS[QUANTS[quant]]
    blocks = fmt.encode(checkpoint.read("w"))
    want = dequantize(bytearray(blocks.numpy().tobytes()), fmt.name, (50, 96))
    assert torch.equal(grouped_weight(checkpoint, fmt.name).stored.numbers(), want)


@torch_alone
def test_parts_of_one_format_share_a_product_and_other_parts_have_their_own() -> None:
    kinds = {"a": "Q4_0", "b": "Q4_0", "c": "Q8_0", "d": "Q4_0"}
    groups = Groups({f"{name}.weight": FORMATS[fmt] for name, fmt in kinds.items()}, torch.float32)
    sizes = {"a": 8, "b": 24, "c": 8, "d": 40}
    linear = Linear(sizes, 64, bias=True, device=CPU, dtype=torch.float32, packing=groups)
    assert [stack.whole.shape[0] for stack in linear.stacks] == [32, 8, 40]
    views = dict(linear.named_views())
    matrices = []
    for name, fmt in kinds.items():
        checkpoint = OneMatrix(fmt, sizes[name], 64)
        weight = views[f"{name}.weight"]
        assert isinstance(weight, GroupedWeight)
        weight.fill(checkpoint, "w")
        matrices.append(checkpoint.read("w"))
    assert linear.bias is not None
    linear.bias.normal_()
    x = torch.randn(70, 64)
    for n in (1, 70):
        assert error(x[:n], torch.cat(matrices), linear.bias, linear(x[:n])) < 1e-6


def test_a_product_with_a_plain_part_is_plain() -> None:
    groups = Groups({"a.weight": FORMATS["Q8_0"], "b.weight": FORMATS["F16"]}, torch.float32)
    linear = Linear({"a": 8, "b": 8}, 64, bias=False, device=CPU, dtype=torch.float32, packing=groups)
    assert not linear.stacks
    assert all(isinstance(view, Tensor) for _, view in linear.named_views())


# ---- whole models


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU gets the layout of a GPU."""
    monkeypatch.setattr(load, "_layout", lambda device, dtype, quant: partial(Groups, dtype=dtype))


def loaded(case: Case, form: str, folder: Path) -> Decoder:
    """A tiny model in a form of a file, in groups."""
    checkpoint = stored(case, form, folder)
    quant = form if form in QUANTS else None
    decoder = load_decoder(checkpoint, device=CPU, dtype=torch.float32, quant=quant)
    decoder.capture(16)
    assert decoder.native is None
    return decoder


@pytest.mark.parametrize("form", [*LAYOUTS, "Q5_0", "F16", *QUANTS])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.usefixtures("as_on_a_gpu")
@torch_alone
def test_logits_and_tokens_are_those_of_the_unpacked_weights(case: Case, form: str, tmp_path: Path) -> None:
    ours = loaded(case, form, tmp_path)
    kept = {view.format.name for _, view in ours.named_views() if isinstance(view, GroupedWeight)}
    own = QUANTS.get(form) or ("Q8_0" if form == "Q5_0" else form)
    assert (own in kept) == (form != "F16")
    prompt = torch.randint(3, VOCAB, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    logits, said = answers(ours, prompt)
    want, greedy = answers(unpacked(ours), prompt)
    assert said == greedy
    for one, other in zip(logits, want, strict=True):
        assert (one - other).abs().max() <= BOUND * other.abs().max()


@pytest.mark.parametrize("form", [*LAYOUTS, *QUANTS])
@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_plan_counts_the_packed_bytes_and_the_scratch(form: str, tmp_path: Path) -> None:
    checkpoint = stored(CASES[0], form, tmp_path)
    plan = blueprint(checkpoint, torch.float32, CPU, form if form in QUANTS else None)
    decoder = load_decoder(
        checkpoint, device=CPU, dtype=torch.float32, quant=form if form in QUANTS else None
    )
    views = [view for _, view in decoder.named_views()]
    largest = max(view.numel() for view in views if isinstance(view, GroupedWeight))
    assert plan.weight_bytes() == decoder.weight_bytes() == sum(v.nbytes for v in views) + 4 * largest
    decoder.step([(decoder.new_cache(70), [5] * 70, 70)])
    taken = decoder._packing._scratch._memory  # type: ignore[union-attr]
    assert taken.nbytes == 4 * largest


def test_where_a_gpu_keeps_them_and_where_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(CASES[0], tmp_path)
    path = write_gguf(tmp_path / "tiny.gguf", tmp_path, "Q8_0")

    def kept(device: torch.device, quant: str | None = None, *, triton: bool = False) -> set[str]:
        monkeypatch.setattr(load, "runs_triton", lambda device: triton)
        plan = blueprint(GgufCheckpoint.open(path), torch.bfloat16, device, quant)
        return {v.format.name for _, v in plan.named_views() if not isinstance(v, Tensor)}

    assert kept(CUDA, triton=True) == {"Q8_0"}
    assert kept(CUDA, "int4", triton=True) == {"Q4_1", "Q8_0"}
    # without kernels each step unpacks every matrix, which is slower than to read it unpacked
    assert kept(CUDA) == kept(MPS) == set()
    assert kept(MPS, "int8") == {"Q8_0"}
    assert kept(CPU) == set()
    with pytest.raises(UnsupportedParameter, match="on a CPU in float32"):
        kept(CPU, "int8")


def test_safetensors_of_a_gpu_stay_plain_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "runs_triton", lambda device: True)
    save_tiny(CASES[0], tmp_path)
    plan = blueprint(SafetensorsCheckpoint(ModelFolder(tmp_path)), torch.bfloat16, CUDA)
    assert all(isinstance(view, Tensor) for _, view in plan.named_views())
    assert plan.weight_bytes() == sum(view.nbytes for _, view in plan.named_views())
