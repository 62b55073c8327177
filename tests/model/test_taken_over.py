"""Blocks that are taken over from another type, beside what the `gguf` package reads of the two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from neuron.errors import InvalidModelFile
from neuron.model import load, native
from neuron.model.gguf_checkpoint import GgufCheckpoint
from neuron.model.grouped import Groups
from neuron.model.load import blueprint, load_decoder
from neuron.model.packed import FORMATS, PackedWeight, Packing, Tiles
from tests.model.test_ggml_types import random_blocks
from tests.model.test_packed import BOUND, answers, stored, unpacked
from tests.support.tiny_models import VOCAB, Case

CPU = torch.device("cpu")
WIDE = Case(
    "llama-wide", "LlamaConfig", {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
)
"""Rows in whole blocks of 256."""
KEPT = {"Q4_K": "Q4_1", "Q3_K": "Q8_0", "Q6_K": "Q8_0"}
"""Stored as -> kept as."""
PROMPT = [(7 * i) % VOCAB for i in range(60)]
SCALE, MINIMUM = slice(0, 2), slice(2, 4)
"""Bytes of a block of Q4_K; twelve of parts follow, then the values."""
LARGEST = np.array([65504], np.float16).view(np.uint8)

needs_kernels = pytest.mark.skipif(
    native.library() is None, reason="no kernels were compiled: there is no C compiler"
)


def numbers(blocks: np.ndarray, name: str) -> np.ndarray:
    """float32, as the other implementation reads them."""
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])


def taken_over(blocks: np.ndarray, stored: str, kept: str) -> np.ndarray:
    """The numbers after that, in rows as before."""
    return numbers(FORMATS[kept].takes[stored](torch.from_numpy(blocks)).numpy(), kept)


@pytest.mark.parametrize("name", ["Q5_0", "Q3_K"])
def test_in_eight_bits_these_are_the_very_numbers(name: str) -> None:
    blocks = random_blocks(name, 600).reshape(3, -1)
    assert np.array_equal(taken_over(blocks, name, "Q8_0"), numbers(blocks, name))


def test_q4_k_keeps_its_values() -> None:
    blocks = random_blocks("Q4_K", 600)
    blocks[:, SCALE], blocks[:, MINIMUM] = np.array([[1], [0]], np.float16).view(np.uint8)
    blocks[:, 4:16] = [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    found = taken_over(blocks.reshape(3, -1), "Q4_K", "Q4_1")
    assert np.array_equal(found, numbers(blocks.reshape(3, -1), "Q4_K"))
    assert set(found.flat) == set(range(16))


@pytest.mark.parametrize("other", [MINIMUM, SCALE], ids=["scale", "minimum"])
def test_q4_k_has_its_scales_and_minima_rounded_to_eleven_bits(other: slice) -> None:
    blocks = random_blocks("Q4_K", 600)
    blocks[3] = 0  # what is too large is refused
    blocks[:, other] = 0
    found, exact = taken_over(blocks, "Q4_K", "Q4_1"), numbers(blocks, "Q4_K")
    assert (np.abs(found - exact) <= 2**-11 * np.abs(exact)).all()
    assert np.array_equal(found[2], exact[2]), "multiples of the smallest float16"
    assert exact[2].any()


@needs_kernels
@pytest.mark.parametrize("packing", [Tiles, partial(Groups, dtype=torch.float32)], ids=["tiles", "groups"])
@pytest.mark.parametrize("form", KEPT)
@pytest.mark.usefixtures("exact")
@torch.inference_mode()
def test_logits_and_tokens_are_those_of_the_unpacked_weights(
    form: str, packing: Callable[..., Packing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_layout", lambda *where: packing)
    ours = load_decoder(stored(WIDE, form, tmp_path), device=CPU, dtype=torch.float32)
    ours.capture(16)
    kept = {view.format.name for _, view in ours.named_views() if not isinstance(view, torch.Tensor)}
    assert kept == {KEPT[form]}
    logits, said = answers(ours, PROMPT)
    want, greedy = answers(unpacked(ours), PROMPT)
    assert said == greedy
    for one, other in zip(logits, want, strict=True):
        assert (one - other).abs().max() <= BOUND * other.abs().max()


@needs_kernels
def test_a_plan_knows_what_they_take(tmp_path: Path) -> None:
    checkpoint = stored(WIDE, "Q4_K", tmp_path)
    plan = blueprint(checkpoint, torch.float32, CPU)
    decoder = load_decoder(checkpoint, device=CPU, dtype=torch.float32)
    matrices = [view for _, view in decoder.named_views() if isinstance(view, PackedWeight)]
    assert {view.format.name for view in matrices} == {"Q4_1"}
    assert sum(view.nbytes for view in matrices) == sum(view.numel() for view in matrices) * 5 // 8
    assert plan.weight_bytes() == decoder.weight_bytes()


@needs_kernels
def test_a_scale_that_is_too_large_is_refused_with_its_tensor(tmp_path: Path) -> None:
    stored(WIDE, "Q4_K", tmp_path).close()
    file = gguf.GGUFReader(tmp_path / "tiny.gguf", "r+")
    next(t for t in file.tensors if t.name == "blk.1.ffn_down.weight").data[7, SCALE] = LARGEST
    file.data.flush()
    checkpoint = GgufCheckpoint.open(tmp_path / "tiny.gguf")
    with pytest.raises(InvalidModelFile, match=r"layers\.1\.mlp\.down_proj\.weight, Q4_K: a scale"):
        load_decoder(checkpoint, device=CPU, dtype=torch.float32)
    checkpoint.close()
