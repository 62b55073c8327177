"""One forward pass over the planned sequences, and new tokens for each that has its whole prompt computed."""

from __future__ import annotations

import math
import time
from itertools import count

import torch
from torch import Tensor

from neuron import faults
from neuron.engine.device_errors import as_error
from neuron.engine.events import FinishReason
from neuron.engine.rules import Rules
from neuron.engine.sampling import Sampler, draw
from neuron.engine.scheduler import Part
from neuron.engine.sequence import Output, RawLogprobs, Sequence
from neuron.errors import InsufficientCache, NeuronError, NumericalError
from neuron.model.decoder import Decoder
from neuron.model.native import best_ids

Row = tuple[Sequence, int]
"""A sequence and where the logits of its next id are."""


def begin(sequence: Sequence, decoder: Decoder) -> None:
    """Take the cache and the sampler. Raises `InsufficientCache` when the memory is not there."""
    try:
        faults.at("cache")
        sequence.cache = decoder.new_cache(sequence.capacity)
    except (RuntimeError, MemoryError) as e:
        raise InsufficientCache(
            f"no memory for a cache of {sequence.kv_bytes >> 20} MB",
            required_mb=sequence.kv_bytes >> 20,
            retry_after_s=5,
        ) from e
    sequence.sampler = _sampler(sequence, decoder)
    sequence.started_s = time.monotonic()


def begin_followers(leader: Sequence, decoder: Decoder) -> tuple[list[Sequence], list[Output]]:
    """Begin the other answers to a prompt that the leader's cache holds, which they take over before their first
    step; and an `Output` for each that can't."""
    begun, failed = [], []
    followers, leader.followers = leader.followers, []
    for follower in followers:
        try:
            begin(follower, decoder)
        except Exception as e:
            failed.append(Output(follower, is_end=True, error=_as_error(e)))
        else:
            follower.started_s, follower.filling = leader.started_s, follower.n_prompt_left > 1
            follower.source = leader.cache if follower.filling else None
            begun.append(follower)
    return begun, failed


def _sampler(sequence: Sequence, decoder: Decoder) -> Sampler:
    vocab_size, device = decoder.arch.vocab_size, decoder.device
    rules = Rules(sequence, vocab_size, device) if Rules.needed(sequence) else None
    return Sampler(sequence.sampling, sequence.prompt_ids, vocab_size, device, rules)


@torch.inference_mode()
def run_step(decoder: Decoder, plan: list[Part]) -> list[Output]:
    """Compute the plan; what became of each sequence that got a token or failed.

    When the step fails as a whole, each sequence is tried alone, so that only the guilty one ends.
    """
    held = [sequence.cache.length for sequence, *_ in plan if sequence.cache is not None]
    try:
        return _compute(decoder, plan)
    except Exception as e:
        _take_back(plan, held)
        if len(plan) > 1:
            return [output for part in plan for output in run_step(decoder, [part])]
        return [Output(plan[0].sequence, is_end=True, error=_as_error(e))]


def _take_back(plan: list[Part], held: list[int]) -> None:
    """Leave the caches as they were: a step may fail behind its last layer, where they have grown by its tokens."""
    for part, n_tokens in zip(plan, held, strict=True):
        if part.sequence.cache is not None:
            part.sequence.cache.truncate(n_tokens)


def _compute(decoder: Decoder, plan: list[Part]) -> list[Output]:
    parts, firsts = [], []
    n_rows = 0
    for sequence, ids, draft in plan:
        assert sequence.cache is not None
        completes = sequence.cache.length + len(ids) >= len(sequence.prompt_ids)
        n_logits = 1 + len(draft) if completes else 0
        parts.append((sequence.cache, [*ids, *draft], n_logits))
        if completes:
            firsts.append((sequence, n_rows))
            n_rows += n_logits
    injected = faults.at("step" if all(sequence.ids for sequence, _, _ in plan) else "prefill")
    logits = decoder.step(parts)  # [R, V]
    if "nan" in (injected, faults.at("logits")):
        logits[:1] = math.nan
    return _sample(firsts, {s: draft for s, _, draft in plan if draft}, logits) if firsts else []


def _sample(rows: list[Row], drafts: dict[Sequence, list[int]], logits: Tensor) -> list[Output]:
    """An `Output` for each id that came.

    The rows of logits [R, V] behind a sequence's first are those of its draft; one counts if the draft was right so
    far. What was computed of the rest is forgotten.
    """
    greedy = best_ids(logits)
    outputs: list[Output] = []
    for at in count():
        chosen = _chosen(rows, greedy, logits)
        outputs += chosen
        if not drafts:
            break
        rows = [
            (s, row + 1)
            for (s, row), output in zip(rows, chosen, strict=True)
            if not output.is_end and drafts.get(s, [])[at : at + 1] == [output.token]
        ]
        for sequence, _ in rows:
            sequence.n_drafted_right += 1
        if not rows:
            break
    for sequence, draft in drafts.items():
        sequence.n_drafted += len(draft)
        sequence.forget_unread()
    return outputs


def _chosen(rows: list[Row], greedy: list[int], logits: Tensor) -> list[Output]:
    """The next id of each row."""
    drawn = _drawn([(s, row) for s, row in rows if greedy[row] >= 0], logits)
    return [_choose(s, greedy[row], drawn.get(s), row, logits) for s, row in rows]


def _drawn(rows: list[Row], logits: Tensor) -> dict[Sequence, int]:
    """Ids of the sequences that do nothing but draw, all in one go."""
    plain = [(s, s.sampler, row) for s, row in rows if s.sampler is not None and s.sampler.is_plain_draw]
    if not plain:
        return {}
    try:
        ids = draw([sampler for _, sampler, _ in plain], logits[[row for _, _, row in plain]])
    except Exception:  # each is drawn alone then, so that only the guilty one fails
        return {}
    return {s: token for (s, _, _), token in zip(plain, ids, strict=True)}


def _choose(sequence: Sequence, best: int, drawn: int | None, row: int, logits: Tensor) -> Output:
    """The next token by a row of logits [R, V]: its ``best`` id (-1: one is not finite) for a greedy request,
    ``drawn``, or what its sampler picks.
    """
    if best < 0:
        return not_finite(sequence)
    try:
        sampler = sequence.sampler
        assert sampler is not None
        if drawn is None:
            drawn = best if sampler.is_plain_greedy else sampler.pick(logits[row])
        wants = sequence.generation.logprobs
        return accept(sequence, drawn, None if wants is None else _logprobs(drawn, logits[row], wants))
    except Exception as e:
        return Output(sequence, is_end=True, error=_as_error(e))


def _logprobs(token: int, logits: Tensor, n_top: int) -> RawLogprobs:
    """Log-softmax of the raw logits [V] at the token and at the likeliest ids."""
    logprobs = logits.log_softmax(dim=-1)
    top = logprobs.topk(n_top)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return RawLogprobs(float(logprobs[token]), tuple(pairs))


def accept(sequence: Sequence, token: int, logprobs: RawLogprobs | None = None) -> Output:
    """The next token of a sequence."""
    if not sequence.ids:
        sequence.first_token_s = time.monotonic()
    sequence.ids.append(token)
    if sequence.drafts is not None:
        sequence.drafts.add(token)
    reason = _why_ended(sequence, token)
    return Output(sequence, token, logprobs, reason is not None, reason)


def _why_ended(sequence: Sequence, token: int) -> FinishReason | None:
    """Why the newest token is the last; None: it is not."""
    rules = sequence.sampler.rules if sequence.sampler is not None else None
    if token in sequence.end_ids or (rules is not None and rules.is_done):
        return "stop"
    return "length" if len(sequence.ids) >= sequence.max_new_tokens else None


def not_finite(sequence: Sequence) -> Output:
    """The end of a sequence that has no next token."""
    error = NumericalError("the model computed logits that are not finite; the answer was ended")
    return Output(sequence, is_end=True, error=error)


def _as_error(e: Exception) -> NeuronError:
    return as_error(e, "the decode step")
