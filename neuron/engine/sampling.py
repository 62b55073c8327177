"""Logits to the next id, per request and with a seed of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from random import getrandbits

import torch
from torch import Tensor

from neuron.engine.race import Draws
from neuron.engine.request import Sampling
from neuron.engine.rules import Rules
from neuron.model.native import Draw, library
from neuron.model.native import draw as draw_by_kernels


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
        self.n_drawn = 0
        """Ids that were drawn so far."""
        self._bias = _sparse(sampling.logit_bias, vocab_size, device)
        self._seen: Tensor | None = None  # [V] bool, prompt and answer
        self._counts: Tensor | None = None  # [V] float32, answer only
        if self.repetition != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor(list(prompt_ids), dtype=torch.int64, device=device)] = True
        if self.presence or self.frequency:
            self._counts = torch.zeros(vocab_size, device=device)

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
        """How the next id is drawn."""
        seed, count = self._seed & (1 << 64) - 1, self.n_drawn + 1
        return Draw(self.temperature, self.top_p, self.min_p, self.top_k, seed, count)

    def _record(self, chosen: int) -> None:
        if self.rules is not None:
            self.rules.record(chosen)
        if self._seen is not None:
            self._seen[chosen] = True
        if self._counts is not None:
            self._counts[chosen] += 1


def draw(samplers: Sequence[Sampler], scores: Tensor) -> list[int]:
    """An id for each row of scores [R, V] float32 by its sampler's temperature, top-k, top-p, min-p and seed.

    A race of exponential clocks: argmax of p / Exp(1) is distributed as p. The noise of an id does not depend on
    the others, so the last bits of the logits, which a batch changes, do not change what is drawn. A cumulative sum
    would: among thousands of unlikely ids it shifts by more than one of them is wide.
    """
    how = [s.next_draw() for s in samplers]
    if scores.device.type == "cpu" and library() is not None:
        drawn = draw_by_kernels(scores, how)
    else:
        any_id = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        drawn = Draws(how, scores.device)(scores, any_id).tolist()
    for sampler in samplers:
        sampler.n_drawn += 1
    return drawn


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
