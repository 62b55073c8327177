"""What a sampler draws: the right distribution, within bounds, whatever the last bits of the logits are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from neuron.engine.race import Draws
from neuron.engine.request import NEUTRAL, Sampling
from neuron.engine.sampling import Sampler, draw
from neuron.model.native import library

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, params=["kernels", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds for both ways to draw."""
    if request.param == "torch":
        monkeypatch.setattr("neuron.engine.sampling.library", lambda: None)
    elif library() is None:
        pytest.skip("no kernels were compiled: there is no C compiler")
    return str(request.param)


LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5, -3.0])


def sampler(sampling: Sampling, prompt: tuple[int, ...] = (), vocab_size: int = len(LOGITS)) -> Sampler:
    """A sampler of a complete request."""
    return Sampler(sampling.over(NEUTRAL), prompt, vocab_size, CPU)


def drawn(sampling: Sampling, n: int = 4000) -> dict[int, float]:
    """Relative frequencies of what is drawn from `LOGITS`."""
    one = sampler(replace(sampling, seed=1))
    counts = Counter(one.pick(LOGITS) for _ in range(n))
    return {i: c / n for i, c in counts.items()}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_are_the_softmax(temperature: float) -> None:
    found = drawn(Sampling(temperature=temperature))
    want = (LOGITS / temperature).softmax(dim=-1)
    assert all(abs(found.get(i, 0.0) - float(p)) < 0.03 for i, p in enumerate(want))


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(top_k=2), {0, 4}),
        (Sampling(top_k=1), {0}),
        (Sampling(top_p=0.5), {0, 4}),
        (Sampling(top_p=0.01), {0}),
        (Sampling(min_p=0.3), {0, 1, 4}),
        (Sampling(top_k=3, top_p=0.6), {0, 4}),
        (Sampling(logit_bias={5: 100.0}), {5}),
        (Sampling(temperature=0.0), {0}),
        (Sampling(temperature=0.0, logit_bias={0: -100.0}), {4}),
    ],
)
def test_bounds_are_kept_and_reached(sampling: Sampling, allowed: set[int]) -> None:
    assert set(drawn(sampling, 1500)) == allowed


def test_a_wide_nucleus_is_found_beyond_the_shortlist() -> None:
    flat = torch.zeros(5000)
    one = sampler(Sampling(top_p=0.9, seed=1), vocab_size=5000)
    seen = {one.pick(flat) for _ in range(3000)}
    assert len(seen) > 1500


def test_penalties_make_what_was_said_less_likely() -> None:
    always = sampler(Sampling(temperature=0.0, presence_penalty=2.0))
    assert [always.pick(LOGITS) for _ in range(3)] == [0, 4, 1]
    often = sampler(Sampling(temperature=0.0, frequency_penalty=0.4))
    assert [often.pick(LOGITS) for _ in range(4)] == [0, 0, 4, 0]


def test_a_repetition_penalty_counts_the_prompt() -> None:
    assert sampler(Sampling(temperature=0.0, repetition_penalty=1.9), prompt=(0,)).pick(LOGITS) == 4
    assert sampler(Sampling(temperature=0.0, repetition_penalty=1.9)).pick(LOGITS) == 0


def test_the_last_bits_of_the_logits_do_not_change_what_is_drawn() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50_000, generator=generator)
    noise = 1e-5 * torch.randn(50_000, generator=generator)
    exact, shaken = (sampler(Sampling(seed=9), vocab_size=50_000) for _ in range(2))
    assert [exact.pick(logits) for _ in range(200)] == [shaken.pick(logits + noise) for _ in range(200)]


def test_a_seed_belongs_to_its_request() -> None:
    first, other = sampler(Sampling(seed=4)), sampler(Sampling(seed=4))
    drawn_first = [first.pick(LOGITS) for _ in range(30)]
    torch.manual_seed(0)
    assert drawn_first == [other.pick(LOGITS) for _ in range(30)]
    assert drawn_first != [sampler(Sampling(seed=5)).pick(LOGITS) for _ in range(30)]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(top_p=0.9),
        Sampling(top_k=40, temperature=1.5),
        Sampling(top_k=5, top_p=0.8),
        Sampling(top_p=0.95, min_p=0.05),
        Sampling(min_p=0.02),
    ],
    ids=str,
)
def test_what_can_be_drawn_from_a_large_vocabulary_is_what_the_definition_says(sampling: Sampling) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(3000)
    whole = sampling.over(NEUTRAL)
    probs, ids = (logits / whole.temperature).softmax(0).sort(descending=True)
    kept = probs[: whole.top_k or len(probs)]
    kept = kept[kept.cumsum(0) - kept < whole.top_p * (kept.sum() if whole.top_k else 1.0)]
    kept = kept[kept >= whole.min_p * kept[0]]
    want = dict(zip(ids.tolist(), (kept / kept.sum()).tolist(), strict=False))
    one, n = sampler(replace(sampling, seed=2), vocab_size=3000), 6000
    counts = Counter(one.pick(logits) for _ in range(n))
    assert counts.keys() <= want.keys()
    for token, p in want.items():
        spread = (p * (1 - p) / n) ** 0.5
        assert abs(counts[token] / n - p) < 5 * spread + 1 / n, token


def test_rows_that_are_drawn_together_are_drawn_as_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 400)
    kinds = [Sampling(), Sampling(top_k=3), Sampling(top_p=0.5), Sampling(min_p=0.1), Sampling(), Sampling()]

    def samplers() -> list[Sampler]:
        return [sampler(replace(kind, seed=i), vocab_size=400) for i, kind in enumerate(kinds)]

    together, alone = samplers(), samplers()
    for _ in range(20):
        assert draw(together, logits) == [one.pick(row) for one, row in zip(alone, logits, strict=True)]


def test_a_seed_draws_the_same_by_torch_and_by_the_kernels(way: str) -> None:
    if way == "torch":
        pytest.skip("nothing to compare with")
    torch.manual_seed(0)
    logits, n = 2 * torch.randn(5, 20_000), 100
    kinds = [
        Sampling(),
        Sampling(top_k=30),
        Sampling(top_p=0.8),
        Sampling(min_p=0.1),
        Sampling(temperature=0.5),
    ]
    samplers = [
        sampler(replace(kind, seed=(i - 2) * 2**61 + i), vocab_size=20_000) for i, kind in enumerate(kinds)
    ]
    by_torch = Draws([one.next_draw() for one in samplers], CPU)
    differ = 0
    for _ in range(n):
        ids = by_torch(logits, torch.zeros(5, dtype=torch.int64)).tolist()
        for one, row, token in zip(samplers, logits, ids, strict=True):
            differ += one.pick(row) != token
    assert differ <= n * len(kinds) / 200  # where two all but tie
