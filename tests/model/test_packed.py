"""Weights in the width of the file, or narrower ones made on load, beside the same numbers unpacked to float32.

The bound: logits are those of the torch code on the unpacked weights, off by at most `BOUND` of the largest, and
greedy tokens are the same. Behind a prompt whose rows were rounded to 16 bits (``csrc/integers.h``) it is
`BOUND_BEHIND_PROMPTS`. How far a format is from the weights that it was made of: ``make quality``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuron.files import ModelFolder
from neuron.model import native, packed
from neuron.model.cache import SequenceCache
from neuron.model.checkpoint import Checkpoint
from neuron.model.decoder import Decoder
from neuron.model.ggml_types import FLOATS
from neuron.model.gguf_checkpoint import GgufCheckpoint
from neuron.model.load import build, load_decoder
from neuron.model.native_step import MOST_ROWS
from neuron.model.packed import FORMATS, QUANTS, PackedWeight
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from tests.support.gguf_files import write_gguf
from tests.support.tiny_models import CASES, VOCAB, Case, save_tiny

CPU = torch.device("cpu")
BOUND = 2e-5
BOUND_BEHIND_PROMPTS = 1e-3
N_NEW = 32
GGUF = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0")

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="no kernels were compiled: there is no C compiler"
)


def stored(case: Case, form: str, folder: Path) -> Checkpoint:
    """A tiny model in a form of a file."""
    save_tiny(case, folder)
    if form in QUANTS:
        return SafetensorsCheckpoint(ModelFolder(folder))
    return GgufCheckpoint.open(write_gguf(folder / "tiny.gguf", folder, form))


def unpacked(decoder: Decoder) -> Decoder:
    """The same numbers in float32, for torch."""
    plain = build(decoder.arch, device=CPU, dtype=torch.float32)
    assert isinstance(plain, Decoder)
    views = dict(decoder.named_views())
    for name, view in plain.named_views():
        own = views[name]
        assert isinstance(view, Tensor)
        view.copy_(own if isinstance(own, Tensor) else own.rows(torch.arange(own.shape[0])))
    plain.capture(16)
    plain.native = None
    return plain


def prefilled(decoder: Decoder, prompt: list[int], n: int) -> tuple[SequenceCache, Tensor]:
    """A cache with a prompt, computed ``n`` tokens at a time, and the logits behind it."""
    cache = decoder.new_cache(len(prompt) + N_NEW)
    for i in range(0, len(prompt), n):
        logits = decoder.step([(cache, prompt[i : i + n], 1)])[0].clone()
    return cache, logits


def answers(decoder: Decoder, prompt: list[int]) -> tuple[list[Tensor], list[int]]:
    """Logits behind the prompt and behind each of the likeliest ids that follow."""
    cache, last = prefilled(decoder, prompt, len(prompt))
    logits, said = [last], []
    while len(said) < N_NEW:
        said.append(int(logits[-1].argmax()))
        logits.append(decoder.step([(cache, said[-1:], 1)])[0].clone())
    return logits, said


@pytest.mark.parametrize("form", [*GGUF, *QUANTS])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@torch.inference_mode()
def test_logits_and_tokens_are_those_of_the_unpacked_weights(
    case: Case, form: str, exact: None, tmp_path: Path
) -> None:
    ours = load_decoder(
        stored(case, form, tmp_path), device=CPU, dtype=torch.float32, quant=QUANTS.get(form) and form
    )
    ours.capture(16)
    kept = {view.format.name for _, view in ours.named_views() if isinstance(view, PackedWeight)}
    assert (QUANTS.get(form) or (form if form in FORMATS else "Q8_0")) in kept
    prompt = torch.randint(3, VOCAB, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    assert ours.native is not None
    plain = unpacked(ours)
    logits, said = answers(ours, prompt)
    want, greedy = answers(plain, prompt)
    assert said == greedy
    for one, other in zip(logits, want, strict=True):
        assert (one - other).abs().max() <= BOUND * other.abs().max()
    native.set_exact(False)  # in one call of the step, by products of many rows, and by both
    bound = BOUND_BEHIND_PROMPTS if native.rounds() and form not in FLOATS else BOUND
    for n in (20, 60, 50):
        _, found = prefilled(ours, prompt, n)
        assert (found - want[0]).abs().max() <= bound * want[0].abs().max()


@torch.inference_mode()
def test_rows_that_decode_are_not_rounded_whoever_is_beside_them(tmp_path: Path) -> None:
    decoder = load_decoder(stored(CASES[0], "Q8_0", tmp_path), device=CPU, dtype=torch.float32)
    decoder.capture(16)
    caches = [prefilled(decoder, [5, 6, 7], 3)[0] for _ in range(MOST_ROWS + 8)]
    alone = decoder.step([(caches.pop(), [9], 1)])[0].clone()
    for n_new in (4, MOST_ROWS + 1):
        prompt = (decoder.new_cache(n_new), [4] * n_new, 1)
        logits = decoder.step([*((cache, [9], 1) for cache in caches), prompt])
        assert len(logits) == len(caches) + 1
        assert (logits[:-1] - alone).abs().max() <= BOUND * alone.abs().max()
        assert [cache.length for cache in caches] == [4] * len(caches)
        for cache in caches:
            cache.truncate(3)


@pytest.mark.parametrize("form", ["Q5_1", *QUANTS])
def test_a_matrix_is_encoded_in_pieces(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []
    fmt = FORMATS[QUANTS.get(form, "Q8_0")]

    def encode(weight: Tensor) -> Tensor:
        pieces.append(len(weight))
        return fmt.encode(weight)

    checkpoint = stored(CASES[0], form, tmp_path)
    name = "model.embed_tokens.weight"
    shape = checkpoint.tensors[name].shape
    whole = PackedWeight(fmt, *shape, CPU)
    whole.fill(checkpoint, name)
    monkeypatch.setattr(packed, "PIECE_ITEMS", 32 * shape[1])
    cut = PackedWeight(fmt._replace(encode=encode), *shape, CPU)
    cut.fill(checkpoint, name)
    assert torch.equal(cut.data[: len(whole.data) - 1], whole.data[: len(whole.data) - 1])
    assert torch.equal(cut.rows(torch.arange(shape[0])), whole.rows(torch.arange(shape[0])))
    assert sum(pieces) == shape[0]
    assert max(pieces) == 32
