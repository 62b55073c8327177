"""Logits to the next id, per request and with a generator of its own, so that a seed belongs to a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from random import getrandbits

import torch
from torch import Tensor

from neuron.engine.request import Sampling
from neuron.engine.rules import Rules
from neuron.model.native import Draw, library
from neuron.model.native import draw as draw_by_kernels

SHORTLIST = 512
"""Candidates sorted first for ``top_p``; the whole vocabulary is sorted only when they do not hold its mass."""


class Sampler:
    """Built once per request from a complete `Sampling` (see `Sampling.over`).

    Order: logit bias, repetition, presence and frequency penalty, rules, temperature, top-k, top-p, min-p.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: Iterable[int],
        vocab_size: int,
        device: torch.device,
        rules: Rules | None = None,
    ) -> None:
        self.rules = rules
        self._vocab_size = vocab_size
        complete = {f.name: getattr(sampling, f.name) for f in fields(sampling) if f.name != "seed"}
        assert None not in complete.values(), complete
        self.temperature: float = complete["temperature"]
        self.top_p: float = complete["top_p"]
        self.top_k: int = complete["top_k"]
        self.min_p: float = complete["min_p"]
        self.repetition: float = complete["repetition_penalty"]
        self.presence: float = complete["presence_penalty"]
        self.frequency: float = complete["frequency_penalty"]
        is_plain = not (_edits_logits(sampling) or rules)
        self.is_plain_greedy = is_plain and self.temperature == 0
        self.is_plain_draw = is_plain and self.temperature > 0
        """Whether `draw` on the logits is all that `pick` does."""
        self._seed = getrandbits(63) if sampling.seed is None else sampling.seed
        self._n_drawn = 0
        self._generator = torch.Generator(device=device).manual_seed(self._seed)
        self._bias = _sparse(sampling.logit_bias, vocab_size, device)
        self._seen: Tensor | None = None  # [V] bool, prompt and answer
        self._counts: Tensor | None = None  # [V] float32, answer only
        if self.repetition != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor(list(prompt_ids), dtype=torch.int64, device=device)] = True
        if self.presence or self.frequency:
            self._counts = torch.zeros(vocab_size, device=device)

    @property
    def shortlists(self) -> bool:
        """Whether only the best of the ids can be drawn."""
        return bool(self.top_k) or self.top_p < 1.0

    def pick(self, logits: Tensor) -> int:
        """The next id from one row of finite logits [V] float32, which is left as it is."""
        forced = self.rules.forced() if self.rules else None
        chosen = self._choose(logits) if forced is None else forced
        self._record(chosen)
        return chosen

    def _choose(self, logits: Tensor) -> int:
        scores = self._edited(logits)
        if self.rules is not None:
            scores = self.rules.apply(scores)
        return int(scores.argmax()) if self.temperature == 0 else draw([self], scores[None])[0]

    def _edited(self, logits: Tensor) -> Tensor:
        if self._bias is not None:
            logits = logits + self._bias
        if self._seen is not None:
            penalised = torch.where(logits > 0, logits / self.repetition, logits * self.repetition)
            logits = torch.where(self._seen, penalised, logits)
        if self._counts is not None:
            presence = (self._counts > 0) * self.presence
            logits = logits - presence - self._counts * self.frequency
        return logits

    def next_draw(self) -> Draw:
        """How the processor's kernels draw the next id."""
        self._n_drawn += 1
        seed, count = self._seed & (1 << 64) - 1, self._n_drawn
        return Draw(self.temperature, self.top_p, self.min_p, self.top_k, seed, count)

    def noise(self) -> Tensor:
        """[V] float32 from Exp(1), the request's own."""
        uniform = torch.rand(self._vocab_size, generator=self._generator, device=self._generator.device)
        return uniform.log_().neg_()  # three times as fast as `exponential_` on a CPU

    def _record(self, chosen: int) -> None:
        if self.rules is not None:
            self.rules.record(chosen)
        if self._seen is not None:
            self._seen[chosen] = True
        if self._counts is not None:
            self._counts[chosen] += 1


def draw(samplers: Sequence[Sampler], scores: Tensor) -> list[int]:
    """An id for each row of scores [R, V] float32 by its sampler's temperature, top-k, top-p, min-p and generator.

    A race of exponential clocks: argmax of p / Exp(1) is distributed as p. The noise of an id does not depend on
    the others, so the last bits of the logits, which a batch changes, do not change what is drawn. A cumulative sum
    would: among thousands of unlikely ids it shifts by more than one of them is wide.
    """
    if scores.device.type == "cpu" and library() is not None:
        return draw_by_kernels(scores, [s.next_draw() for s in samplers])
    temperatures = torch.tensor([[s.temperature] for s in samplers], device=scores.device)
    probs = (scores / temperatures).softmax(dim=-1)  # [R, V]
    noise = torch.stack([s.noise() for s in samplers])
    drawn: dict[int, int] = {}
    for of_shortlist in (False, True):
        rows = [i for i, s in enumerate(samplers) if s.shortlists == of_shortlist]
        if rows:
            some = [samplers[i] for i in rows]
            every = len(rows) == len(samplers)
            race = _race(some, probs if every else probs[rows], noise if every else noise[rows])
            drawn.update(zip(rows, race, strict=True))
    return [drawn[i] for i in range(len(samplers))]


def _race(samplers: Sequence[Sampler], probs: Tensor, noise: Tensor) -> list[int]:
    """Winners of rows that all have a shortlist or none."""
    best, ids = _shortlisted(samplers, probs) if samplers[0].shortlists else (probs, None)
    if any(s.min_p for s in samplers):
        least = torch.tensor([[s.min_p] for s in samplers], device=probs.device)
        best = best.where(best >= least * best.amax(dim=-1, keepdim=True), 0.0)
    if ids is None:
        winners = (best / noise).argmax(dim=-1)
    else:
        places = (best / noise.gather(1, ids)).argmax(dim=-1, keepdim=True)
        winners = ids.gather(1, places)[:, 0]
    return [int(i) for i in winners.tolist()]


def _shortlisted(samplers: Sequence[Sampler], probs: Tensor) -> tuple[Tensor, Tensor]:
    """What top-k and top-p leave of probs [R, V], best first, the rest 0, with their ids: [R, n] each."""
    size = probs.shape[1]
    ranks = [min(s.top_k or size, size) for s in samplers]
    masses = torch.tensor([[s.top_p] for s in samplers], device=probs.device)
    best, ids = probs.topk(max(min(s.top_k or SHORTLIST, size) for s in samplers))
    open_ended = [not s.top_k for s in samplers]
    if any(open_ended) and bool((best.sum(-1) < masses[:, 0])[open_ended].any()):
        best, ids = probs.sort(descending=True)
    kept = torch.tensor(ranks, device=probs.device)[:, None]
    best = best.where(torch.arange(best.shape[1], device=probs.device) < kept, 0.0)
    before = best.cumsum(dim=-1) - best  # mass of the better ones
    whole = best.sum(dim=-1, keepdim=True).where(kept < size, 1.0)
    return best.where((before < masses * whole) | (masses >= 1.0), 0.0), ids


def _edits_logits(s: Sampling) -> bool:
    return bool(s.logit_bias or s.presence_penalty or s.frequency_penalty or s.repetition_penalty != 1.0)


def _sparse(bias: Mapping[int, float], vocab_size: int, device: torch.device) -> Tensor | None:
    """A dense [V] row from a mapping of id to value, or None where it is empty."""
    if not bias:
        return None
    row = torch.zeros(vocab_size, device=device)
    row[torch.tensor(list(bias), device=device)] = torch.tensor(
        list(bias.values()), dtype=torch.float32, device=device
    )
    return row
