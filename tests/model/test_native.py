"""The processor's kernels compute what the torch code computes: products of every format, steps of every family."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuron.cli import show
from neuron.files import ModelFolder
from neuron.model import native
from neuron.model.cache import SequenceCache
from neuron.model.checkpoint import TensorInfo
from neuron.model.decoder import Decoder
from neuron.model.ggml_types import UNPACKERS, dequantize
from neuron.model.load import load_decoder
from neuron.model.mlp import ACTIVATIONS
from neuron.model.native_step import MOST_ROWS
from neuron.model.packed import FORMATS, QUANTS, PackedWeight, format_of
from neuron.model.rope import rotate
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from tests.support.tiny_models import CASES, VOCAB, Case, save_tiny

CPU = torch.device("cpu")
BUILDS = sorted(Path(native.__file__).parent.glob("_native_*"))

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="no kernels were compiled: there is no C compiler"
)


def runs_here(build: Path) -> bool:
    """Whether this processor has the instructions of a build."""
    level = build.name.split(".")[0].removeprefix("_native_")
    return level in (*native.BUILDS_FOR[torch.backends.cpu.get_cpu_capability()], "any")


@pytest.fixture(params=BUILDS, ids=lambda path: path.name.split(".")[0])
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each build that was compiled and that the processor can run."""
    if not runs_here(request.param):
        pytest.skip("the processor lacks its instructions")
    lib = native.declared(ctypes.CDLL(str(request.param)))
    monkeypatch.setattr(native, "library", lambda: lib)
    return request.param


def random_blocks(fmt: str, n_out: int, n_in: int) -> Tensor:
    """Bytes of a matrix in a format, with scales that are numbers."""
    kind = FORMATS[fmt]
    if kind.items == 1:
        return kind.encode(torch.randn(n_out, n_in))
    blocks = torch.randint(0, 256, (n_out, n_in // kind.items, kind.n_bytes), dtype=torch.uint8)
    for at in range(0, 4 if fmt == "Q4_1" else 2, 2):
        blocks[..., at : at + 2] = torch.randn(*blocks.shape[:2], 1).half().view(torch.uint8)
    return blocks.flatten(1)


class OneMatrix:
    """A checkpoint of a single matrix."""

    def __init__(self, fmt: str, n_out: int, n_in: int) -> None:
        self.fmt, self.blocks = fmt, random_blocks(fmt, n_out, n_in)
        self.config: dict[str, object] = {}
        self.tensors = {"w": TensorInfo((n_out, n_in), fmt, self.blocks.numel())}

    def read(self, name: str) -> Tensor:
        info = self.tensors[name]
        return dequantize(bytearray(self.blocks.numpy().tobytes()), info.dtype, info.shape)

    def read_rows(self, name: str, n_rows: int) -> Iterator[Tensor]:
        yield from torch.split(self.read(name), n_rows)

    def read_blocks(self, name: str, n_rows: int) -> Iterator[Tensor]:
        yield from torch.split(self.blocks, n_rows)

    def close(self) -> None:
        pass


def most_rounded(x: Tensor, stored: OneMatrix, plain: Tensor) -> Tensor:
    """What rounding x [n, in] to 16 bits may add to each product [n, out] (``csrc/integers.h``)."""
    weight = plain.double()
    if stored.fmt == "Q4_1":  # minima are multiplied with the sums of the numbers as they were
        minima = stored.blocks.view(len(plain), -1, 20)[..., 2:4].contiguous().view(torch.float16).double()
        weight = (weight.view(len(plain), -1, 32) - minima).flatten(1)
    groups = x.double().view(len(x), -1, 32)
    steps = (groups.abs().amax(-1, keepdim=True) / 65534).expand_as(groups).flatten(1)
    return steps @ weight.abs().t()


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("shape", [(1, 32), (16, 32), (33, 64), (47, 96), (100, 1056)], ids=str)
def test_products_and_rows_are_those_of_the_unpacked_matrix(
    build: Path, fmt: str, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    stored = OneMatrix(fmt, *shape)
    weight = PackedWeight(FORMATS[fmt], *shape, CPU)
    weight.bias = torch.randn(shape[0])
    weight.fill(stored, "w")
    plain = stored.read("w").float()
    assert torch.equal(weight.rows(torch.arange(shape[0])), plain)
    for n in (1, 2, 3, 5, 8, 9, 12, 13, 40, 239, 481):
        x = torch.randn(n, shape[1])
        y = torch.full((n, shape[0] + 3), torch.nan)
        native.product(weight.matrix(), x, y[:, : shape[0]])
        want = x.double() @ plain.double().t() + weight.bias.double()
        most = 1e-6 * (x.double().abs() @ plain.double().abs().t() + 1e-3)
        if n > MOST_ROWS and FORMATS[fmt].items > 1 and native.rounds():
            most += 1.001 * most_rounded(x, stored, plain)
        assert ((y[:, : shape[0]] - want).abs() / most).max() < 1
        assert y[:, shape[0] :].isnan().all(), "nothing is written beyond the outputs"


def test_rounding_can_be_turned_off(build: Path) -> None:
    stored, weight = OneMatrix("Q8_0", 20, 64), PackedWeight(FORMATS["Q8_0"], 20, 64, CPU)
    weight.fill(stored, "w")
    x, rounded, exact = torch.randn(40, 64), torch.empty(40, 20), torch.empty(40, 20)
    could = native.rounds()
    native.product(weight.matrix(), x, rounded)
    native.set_exact(True)
    try:
        assert not native.rounds()
        native.product(weight.matrix(), x, exact)
    finally:
        native.set_exact(False)
    assert native.rounds() == could
    want = x.double() @ stored.read("w").double().t()
    size = x.double().abs() @ stored.read("w").double().abs().t()
    assert ((exact - want).abs() / size).max() < 1e-6
    assert torch.equal(exact, rounded) != could


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_is_no_number_stays_so_and_harms_no_other_row(build: Path, fmt: str) -> None:
    stored = OneMatrix(fmt, 20, 64)
    weight = PackedWeight(FORMATS[fmt], 20, 64, CPU)
    weight.fill(stored, "w")
    x, y = torch.randn(40, 64), torch.empty(40, 20)
    x[3], x[4, 40], x[5, 7], x[6, 63], x[7] = 0, torch.nan, torch.inf, -torch.inf, 1e-38
    native.product(weight.matrix(), x, y)
    assert not y[4:7].isfinite().any()
    assert (y[3] == 0).all()
    assert y[[*range(4), *range(7, 40)]].isfinite().all()
    assert y[7].abs().max() < 1e-33


def test_inputs_that_are_no_whole_groups_are_computed_in_plain_formats(build: Path) -> None:
    for fmt in ("F32", "F16", "BF16"):
        stored = OneMatrix(fmt, 20, 45)
        weight = PackedWeight(FORMATS[fmt], 20, 45, CPU)
        weight.fill(stored, "w")
        x, y = torch.randn(13, 45), torch.empty(13, 20)
        native.product(weight.matrix(), x, y)
        torch.testing.assert_close(y, x @ stored.read("w").float().t())


@pytest.mark.parametrize("quant", QUANTS)
def test_quantising_is_off_by_half_a_step_at_most(quant: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 96) * torch.logspace(-3, 2, 40)[:, None]
    weight[3] = 0
    fmt = FORMATS[QUANTS[quant]]
    blocks = fmt.encode(weight)
    back = dequantize(bytearray(blocks.numpy().tobytes()), fmt.name, weight.shape).view(40, -1, 32)
    groups = weight.view(40, -1, 32)
    spread = {"Q8_0": groups.abs().amax(-1) / 127, "Q4_1": (groups.amax(-1) - groups.amin(-1)) / 15}[fmt.name]
    worst = (back - groups).abs().amax(-1)
    assert (worst <= spread * 0.51 + groups.abs().amax(-1) * 2**-10).all()
    assert (back[3] == 0).all()


def test_a_format_is_the_files_own_or_one_that_loses_least() -> None:
    def kept(dtype: str, n_in: int = 64, quant: str | None = None, name: str = "a.weight") -> str:
        return format_of(name, TensorInfo((8, n_in), dtype, 1), quant).name

    for name in FORMATS:
        assert kept(name) == name
    taken = {name: fmt.name for fmt in FORMATS.values() for name in fmt.takes}
    assert taken == {"Q4_K": "Q4_1", "Q5_0": "Q8_0", "Q3_K": "Q8_0"}
    for name in UNPACKERS.keys() - FORMATS.keys():
        assert kept(name) == taken.get(name, "Q8_0")
    assert kept("F64") == "F32"
    told = {name: show.KEPT_AS.get(name, show.OTHERS) for name in (*FORMATS, *UNPACKERS, "F64")}
    assert told == {name: kept(name) for name in told}, "what `neuron show` says"
    assert (kept("BF16", quant="int8"), kept("BF16", quant="int4")) == ("Q8_0", "Q4_1")
    assert kept("BF16", quant="int4", name="lm_head.weight") == "Q8_0"
    assert kept("BF16", n_in=40, quant="int4") == "BF16", "no whole groups"
    assert (kept("Q4_0", quant="int8"), kept("Q4_0", quant="int4")) == ("Q4_0", "Q4_0"), "never wider"
    assert (kept("Q8_0", quant="int4"), kept("Q6_K", quant="int4")) == ("Q4_1", "Q4_1")
    assert (kept("Q4_K", quant="int8"), kept("Q4_K", quant="int4", name="lm_head.weight")) == ("Q4_1", "Q4_1")


# ---- what a prompt's rows need beside products


@pytest.mark.parametrize(
    ("rows", "heads", "kv_heads", "size", "n_keys", "window"),
    [
        (1, 4, 2, 64, 1, None),
        (2, 4, 2, 16, 5, None),
        (37, 4, 1, 24, 100, None),
        (200, 9, 3, 64, 700, None),
        (65, 4, 4, 128, 300, 9),
        (64, 4, 2, 20, 64, 7),
        (300, 6, 2, 80, 513, 200),
    ],
)
def test_attention_is_that_of_torch(
    build: Path, rows: int, heads: int, kv_heads: int, size: int, n_keys: int, window: int | None
) -> None:
    torch.manual_seed(0)
    q = 3 * torch.randn(rows, heads + 3, size)[:, :heads]
    keys, values = torch.randn(2, kv_heads, n_keys + 7, size)[:, :, :n_keys]
    places = torch.arange(n_keys)
    seen = places <= places[n_keys - rows :, None]
    if window:
        seen &= places > places[n_keys - rows :, None] - window
    whole = (q.transpose(0, 1)[None], keys[None], values[None])
    want = F.scaled_dot_product_attention(*(x.double() for x in whole), attn_mask=seen, enable_gqa=True)
    found = native.attend(q, keys, values, window)
    torch.testing.assert_close(
        found.double(), want[0].transpose(0, 1).reshape(rows, -1), atol=2e-5, rtol=1e-5
    )


def test_what_is_no_number_stays_so_in_attention(build: Path) -> None:
    q, keys = torch.randn(40, 2, 32), torch.randn(1, 100, 32)
    q[7, 1, 3] = torch.nan
    found = native.attend(q, keys, keys, None).view(40, 2, 32)
    assert found[7, 1].isnan().all()
    assert found.isnan().sum() == 32, "and nobody else is concerned"


@pytest.mark.parametrize("size", [1, 15, 64, 113])
def test_norms_turns_and_gates_are_those_of_torch(build: Path, size: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(33, size + 3)[:, :size], torch.randn(size)
    torch.testing.assert_close(native.rms_norm(x, weight, 1e-5), F.rms_norm(x, (size,), weight, 1e-5))
    gate, up = (gate_up := torch.randn(33, 2 * size)).chunk(2, dim=-1)
    for name, activation in ACTIVATIONS.items():
        found = native.gate(gate_up, name)
        torch.testing.assert_close(found, activation(gate) * up, atol=1e-5, rtol=1e-5)
    heads, (cos, sin) = torch.randn(33, 5, size)[:, :3], torch.randn(2, 33, 1, size // 2)
    want = rotate(heads, cos, sin)
    native.rotate_in_place(heads, cos, sin)
    torch.testing.assert_close(heads, want)


# ---- whole steps


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """A tiny model of each family, ready to decode."""
    return tiny(request.param, tmp_path_factory.mktemp("model"))


def tiny(case: Case, folder: Path) -> Decoder:
    """A case, loaded and captured."""
    save_tiny(case, folder)
    checkpoint = SafetensorsCheckpoint(ModelFolder(folder))
    decoder = load_decoder(checkpoint, device=CPU, dtype=torch.float32)
    decoder.capture(16)
    return decoder


def ids(n: int, seed: int) -> list[int]:
    """Random ids."""
    return torch.randint(3, VOCAB, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def both(decoder: Decoder, parts: list[tuple[SequenceCache, list[int], bool]]) -> tuple[Tensor, Tensor]:
    """Logits of one step by the kernels and by torch; the caches grow."""
    copies = []
    for cache, new, wants in parts:
        copy = decoder.new_cache(cache.capacity)
        copy.extend_from(cache, cache.length)
        copies.append((copy, new, wants))
    assert decoder.native is not None
    ours, kernels = decoder.step(parts), decoder.native
    decoder.native = None
    try:
        theirs = decoder.step(copies)
    finally:
        decoder.native = kernels
    for (cache, _, _), (copy, _, _) in zip(parts, copies, strict=True):
        assert cache.length == copy.length
        torch.testing.assert_close(
            cache.data[:, :, :, : cache.length], copy.data[:, :, :, : copy.length], atol=1e-4, rtol=1e-3
        )
    return ours, theirs


@torch.inference_mode()
def test_steps_of_the_kernels_are_those_of_torch(decoder: Decoder) -> None:
    caches = [decoder.new_cache(700) for _ in range(4)]
    steps = [
        [(caches[0], ids(MOST_ROWS, 1), True)],
        [(caches[1], ids(600, 2), True)],
        [(cache, ids(1, i), True) for i, cache in enumerate(caches)],
        [(caches[2], ids(9, 3), False), (caches[1], ids(1, 4), True), (caches[3], ids(5, 5), True)],
        [(caches[0], ids(7, 6), False)],
    ]
    for parts in steps:
        ours, theirs = both(decoder, parts)
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


EVERY_SHAPE = [case for case in CASES if case.name in ("llama-head-dim", "mistral", "qwen3")]


@pytest.mark.parametrize("case", EVERY_SHAPE, ids=lambda case: case.name)
@torch.inference_mode()
def test_every_build_computes_steps(build: Path, case: Case, tmp_path: Path) -> None:
    decoder = tiny(case, tmp_path)
    caches = [decoder.new_cache(400) for _ in range(3)]
    for new in (ids(MOST_ROWS, 1), ids(300, 2), ids(1, 3)):
        ours, theirs = both(decoder, [(cache, new, True) for cache in caches[: 1 if len(new) > 1 else 3]])
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_every_build_draws_alike(build: Path) -> None:
    scores = 4 * torch.randn(64, 1003, generator=torch.Generator().manual_seed(0))
    draws = [native.Draw(0.8, 0.95, 0.01, 40, seed, 3) for seed in range(64)]
    found = native.draw(scores, draws)
    assert found == native.draw(scores, draws)
    kept = scores.topk(40).indices
    assert all(int(token) in kept[row] for row, token in enumerate(found))
    assert len(set(found)) > 32
    likeliest = [native.Draw(0.8, 1.0, 0.0, 1, seed, 0) for seed in range(64)]
    assert native.draw(scores, likeliest) == scores.argmax(dim=-1).tolist()


@torch.inference_mode()
def test_a_step_that_can_not_be_computed_leaves_the_caches(decoder: Decoder) -> None:
    cache = decoder.new_cache(4)
    for wrong in ([VOCAB + 10_000], [-1], [1, 2, 3, 4, 5]):
        with pytest.raises(IndexError):
            decoder.step([(cache, wrong, True)])
        assert cache.length == 0


def test_without_kernels_torch_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tiny(CASES[0], tmp_path)
    monkeypatch.setattr("neuron.model.load.library", lambda: None)
    plain = load_decoder(SafetensorsCheckpoint(ModelFolder(tmp_path)), device=CPU, dtype=torch.float32)
    plain.capture(16)
    assert ours.native is not None
    assert plain.native is None
    new = ids(20, 1)
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.step([(ours.new_cache(20), new, True)]), plain.step([(plain.new_cache(20), new, True)])
        )


def test_the_likeliest_id_is_the_first_largest_and_rows_that_are_not_finite_have_none(build: Path) -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 333).round(decimals=1)
    logits[1, 17] = torch.nan
    logits[2, 332] = torch.inf
    logits[3, 0] = -torch.inf
    logits[4] = -5.0
    logits[5, 331] = 9.0
    spoilt = {1, 2, 3}
    want = [-1 if row in spoilt else int(logits[row].argmax()) for row in range(9)]
    assert native.best_ids(logits) == want
    assert native.best_ids(torch.empty(0, 333)) == []


def test_kernels_of_other_sources_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    native.library.cache_clear()
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    assert native.library() is None
    assert "kernels not used" in caplog.text
    native.library.cache_clear()
    monkeypatch.undo()
    assert native.library() is not None
    native.library.cache_clear()
    monkeypatch.setenv(native.TORCH_ONLY, "1")
    assert native.library() is None
    native.library.cache_clear()
