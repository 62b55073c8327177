"""Every family computes what transformers computes, however tokens are cut and batched; mistakes are noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuron.files import ModelFolder
from neuron.model.decoder import Decoder, make_batch
from neuron.model.load import load_decoder
from neuron.model.safetensors_checkpoint import SafetensorsCheckpoint
from tests.support.scorecard import Scorecard
from tests.support.tiny_models import CASES, VOCAB, Case, reference_greedy, reference_logits, save_tiny

CPU = torch.device("cpu")
TOLERANCE = 1e-4
CHUNKS = (0, 1, 8, 9, 23, 40, 47)


@dataclass
class Tally:
    """What the scorecard is told of this module: models that are right, and mistakes that are noticed."""

    n_models: int = 0
    n_right: int = 0
    n_mistakes: int = 0
    n_noticed: int = 0
    worst: float = 0.0
    """The largest difference of a logit."""

    @contextmanager
    def mistake(self) -> Iterator[None]:
        """One that the check must notice."""
        self.n_mistakes += 1
        with pytest.raises(AssertionError):
            yield
        self.n_noticed += 1


@pytest.fixture(scope="module")
def tally(scorecard: Scorecard) -> Iterator[Tally]:
    counts = Tally()
    yield counts
    figure = (
        f"{counts.n_right} of {counts.n_models} models within {counts.worst:.1e}, 64 greedy tokens the same; "
    )
    figure += f"{counts.n_noticed} of {counts.n_mistakes} mistakes noticed"
    right = (counts.n_right, counts.n_noticed) == (counts.n_models, counts.n_mistakes)
    is_whole = counts.n_models == len(CASES) and counts.n_mistakes >= 4 * len(CASES)
    scorecard(41, figure, "<= 1e-4, 100 %, 100 %", right and (is_whole or "not run"))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Decoder]:
    """The reference and our decoder with the same weights."""
    return make_pair(request.param, tmp_path_factory.mktemp("model"))


def make_pair(
    case: Case, folder: Path, edit: Callable[[dict[str, Any]], None] = lambda config: None
) -> tuple[Any, Decoder]:
    """Save a case and load it with our loader; ``edit`` may falsify the configuration."""
    reference = save_tiny(case, folder)
    checkpoint = SafetensorsCheckpoint(ModelFolder(folder))
    edit(checkpoint.config)
    return reference, load_decoder(checkpoint, device=CPU, dtype=torch.float32)


def prompt(n: int, seed: int = 1) -> list[int]:
    """Random ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (n,), generator=generator).tolist()


def chunked_logits(decoder: Decoder, ids: list[int], cuts: tuple[int, ...]) -> torch.Tensor:
    """Logits [T, V] of a prompt that is computed piece by piece."""
    cache = decoder.new_cache(len(ids))
    pieces = [ids[a:b] for a, b in zip(cuts, (*cuts[1:], len(ids)), strict=True)]
    return torch.cat([decoder.forward(make_batch([(cache, p, len(p))], CPU)) for p in pieces])


def greedy(decoder: Decoder, ids: list[int], n: int) -> list[int]:
    """The next ``n`` ids, greedy."""
    cache, new, out = decoder.new_cache(len(ids) + n), ids, []
    for _ in range(n):
        new = [int(decoder.forward(make_batch([(cache, new, True)], CPU))[0].argmax())]
        out += new
    return out


def assert_parity(reference: Any, decoder: Decoder) -> float:
    """The check of this module: whole, token by token, in chunks, and greedy; the largest difference of a logit."""
    ids, worst = prompt(50), 0.0
    want = reference_logits(reference, ids)
    for cuts in ((0,), tuple(range(50)), CHUNKS):
        got = chunked_logits(decoder, ids, cuts)
        torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=0)
        worst = max(worst, float((got - want).abs().max()))
    assert greedy(decoder, ids, 64) == reference_greedy(reference, ids, 64)
    return worst


def test_logits_equal_the_reference_whole_by_token_and_in_chunks(
    pair: tuple[Any, Decoder], tally: Tally
) -> None:
    tally.n_models += 1
    tally.worst = max(tally.worst, assert_parity(*pair))
    tally.n_right += 1


def test_logits_span_a_range_in_which_the_tolerance_means_something(pair: tuple[Any, Decoder]) -> None:
    logits = reference_logits(pair[0], prompt(50))
    assert logits.std() > 0.5


def test_a_batch_with_sequences_of_other_lengths_changes_nothing(pair: tuple[Any, Decoder]) -> None:
    reference, decoder = pair
    prompts = [prompt(n, seed=n) for n in (31, 1, 12, 50)]
    caches = [decoder.new_cache(64) for _ in prompts]
    positions = [0] * len(prompts)
    collected: list[list[torch.Tensor]] = [[] for _ in prompts]
    for step_sizes in ((5, 1, 12, 20), (1, 0, 0, 1), (25, 0, 0, 29)):
        parts, who = [], []
        for i, n in enumerate(step_sizes):
            if n:
                parts.append((caches[i], prompts[i][positions[i] : positions[i] + n], n))
                who += [i] * n
                positions[i] += n
        for i, row in zip(who, decoder.forward(make_batch(parts, CPU)), strict=True):
            collected[i].append(row)
    for ids, rows in zip(prompts, collected, strict=True):
        want = reference_logits(reference, ids)
        torch.testing.assert_close(torch.stack(rows), want, atol=TOLERANCE, rtol=0)


def test_dynamic_rope_beyond_the_original_context_equals_token_by_token_reference(tmp_path: Path) -> None:
    case = next(c for c in CASES if c.name == "llama-dynamic")
    reference, decoder = make_pair(
        replace(case, values={**case.values, "max_position_embeddings": 16}), tmp_path
    )
    ids, past, rows = prompt(40), None, []
    with torch.no_grad():
        for i in ids:
            # by its place: the cache's name changes between versions
            out = reference(torch.tensor([[i]]), None, None, past, use_cache=True)
            past = out.past_key_values
            rows.append(out.logits[0, 0])
    got = chunked_logits(decoder, ids, (0, 11, 25))
    torch.testing.assert_close(got, torch.stack(rows), atol=TOLERANCE, rtol=0)


# ---- the check must be able to fail ---------------------------------------------------------------------------


def _double_theta(config: dict[str, Any]) -> None:
    for place in (config, config.get("rope_parameters") or {}):
        if "rope_theta" in place:
            place["rope_theta"] *= 2


def _change_eps(config: dict[str, Any]) -> None:
    config["rms_norm_eps"] = 1e-2


def _widen_window(config: dict[str, Any]) -> None:
    config["sliding_window"] += 1


def _drop_rope_scaling(config: dict[str, Any]) -> None:
    config.pop("rope_scaling", None)
    config["rope_parameters"] = {"rope_theta": 10000.0}


CONFIG_MUTATIONS = [
    *((case.name, _double_theta) for case in CASES),
    *((case.name, _change_eps) for case in CASES),
    *((f"llama-{kind}", _drop_rope_scaling) for kind in ("linear", "yarn", "llama3")),
    ("mistral", _widen_window),
    ("qwen2-window", _widen_window),
    ("smollm3-window", _widen_window),
]


def by_name(name: str) -> Case:
    """A case of the table."""
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize(
    ("name", "edit"), CONFIG_MUTATIONS, ids=[f"{n}-{e.__name__.strip('_')}" for n, e in CONFIG_MUTATIONS]
)
def test_a_wrong_configuration_value_fails_the_check(
    name: str, edit: Callable[[dict[str, Any]], None], tmp_path: Path, tally: Tally
) -> None:
    reference, decoder = make_pair(by_name(name), tmp_path, edit)
    with tally.mistake():
        assert_parity(reference, decoder)


@pytest.mark.parametrize("name", ["llama-biases", "qwen2"])
def test_a_bias_left_out_fails_the_check(name: str, tmp_path: Path, tally: Tally) -> None:
    reference, decoder = make_pair(by_name(name), tmp_path)
    bias = decoder.blocks[1].attention.qkv.bias
    assert bias is not None
    bias.zero_()
    with tally.mistake():
        assert_parity(reference, decoder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_query_heads_in_another_order_fail_the_check(case: Case, tmp_path: Path, tally: Tally) -> None:
    reference = save_tiny(case, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    heads = weights[name].unflatten(0, (reference.config.num_attention_heads, -1))
    weights[name] = heads.roll(1, 0).flatten(0, 1).contiguous()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    checkpoint = SafetensorsCheckpoint(ModelFolder(tmp_path))
    decoder = load_decoder(checkpoint, device=CPU, dtype=torch.float32)
    with tally.mistake():
        assert_parity(reference, decoder)


@pytest.fixture
def late_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions after the first piece of a sequence are one too high."""

    right = make_batch

    def off_by_one(parts: Any, device: torch.device, **kwargs: Any) -> Any:
        batch = right(parts, device, **kwargs)
        return replace(batch, positions=batch.positions + (batch.positions > 0).long())

    monkeypatch.setitem(chunked_logits.__globals__, "make_batch", off_by_one)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.usefixtures("late_positions")
def test_a_position_off_by_one_fails_the_check(case: Case, tmp_path: Path, tally: Tally) -> None:
    reference, decoder = make_pair(case, tmp_path)
    with tally.mistake():
        assert_parity(reference, decoder)
