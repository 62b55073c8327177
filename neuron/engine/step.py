"""One forward pass over the planned sequences, and one new token for each that has its whole prompt computed."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from neuron.engine.rules import Rules
from neuron.engine.sampling import Sampler, draw
from neuron.engine.sequence import Output, RawLogprobs, Sequence
from neuron.errors import DeviceFault, InsufficientCache, NeuronError, NumericalError
from neuron.model.decoder import Decoder
from neuron.model.native import best_ids

Plan = list[tuple[Sequence, list[int]]]


def begin(sequence: Sequence, decoder: Decoder) -> None:
    """Take the cache and the sampler. Raises `InsufficientCache` when the memory is not there."""
    try:
        sequence.cache = decoder.new_cache(sequence.capacity)
    except (RuntimeError, MemoryError) as e:
        raise InsufficientCache(
            f"no memory for a cache of {sequence.kv_bytes >> 20} MB",
            required_mb=sequence.kv_bytes >> 20,
            retry_after_s=5,
        ) from e
    sequence.sampler = _sampler(sequence, decoder)
    sequence.started_s = time.monotonic()


def _fork(leader: Sequence, follower: Sequence, decoder: Decoder) -> None:
    """Start another answer from the cache that holds the prompt."""
    assert leader.cache is not None
    begin(follower, decoder)
    assert follower.cache is not None
    follower.cache.copy_from(leader.cache)
    follower.started_s = leader.started_s


def _sampler(sequence: Sequence, decoder: Decoder) -> Sampler:
    vocab_size, device = decoder.arch.vocab_size, decoder.device
    rules = Rules(sequence, vocab_size, device) if Rules.needed(sequence) else None
    return Sampler(sequence.sampling, sequence.prompt_ids, vocab_size, device, rules)


@torch.inference_mode()
def run_step(decoder: Decoder, plan: Plan) -> list[Output]:
    """Compute the plan; what became of each sequence that got a token or failed.

    When the step fails as a whole, each sequence is tried alone, so that only the guilty one ends.
    """
    try:
        return _compute(decoder, plan)
    except Exception as e:
        if len(plan) > 1:
            return [output for part in plan for output in run_step(decoder, [part])]
        return [Output(plan[0][0], is_end=True, error=_as_error(e))]


def _compute(decoder: Decoder, plan: Plan) -> list[Output]:
    parts = []
    for sequence, ids in plan:
        assert sequence.cache is not None
        completes = sequence.cache.length + len(ids) >= len(sequence.prompt_ids)
        parts.append((sequence.cache, ids, completes))
    logits = decoder.step(parts)  # [R, V]
    sampled = [sequence for (sequence, _), part in zip(plan, parts, strict=True) if part[2]]
    return _sample(sampled, logits, decoder) if sampled else []


def _sample(sequences: list[Sequence], logits: Tensor, decoder: Decoder) -> list[Output]:
    """An `Output` for each row of logits [R, V], and for each answer that starts from a row's prompt."""
    greedy = best_ids(logits)
    outputs, rows = [], []
    for row, sequence in enumerate(sequences):
        if greedy[row] < 0:
            outputs.append(Output(sequence, is_end=True, error=_not_finite()))
            continue
        followers, sequence.followers = sequence.followers, []
        for follower in followers:
            try:
                _fork(sequence, follower, decoder)
            except Exception as e:
                outputs.append(Output(follower, is_end=True, error=_as_error(e)))
            else:
                rows.append((follower, row))
        rows.append((sequence, row))
    drawn = _drawn(rows, logits)
    return outputs + [_choose(s, greedy[row], logits[row], drawn.get(s)) for s, row in rows]


def _drawn(rows: list[tuple[Sequence, int]], logits: Tensor) -> dict[Sequence, int]:
    """Ids of the sequences that do nothing but draw, all in one go."""
    plain = [(s, s.sampler, row) for s, row in rows if s.sampler is not None and s.sampler.is_plain_draw]
    if not plain:
        return {}
    try:
        ids = draw([sampler for _, sampler, _ in plain], logits[[row for _, _, row in plain]])
    except Exception:  # each is drawn alone then, so that only the guilty one fails
        return {}
    return {s: token for (s, _, _), token in zip(plain, ids, strict=True)}


def _choose(sequence: Sequence, best: int, logits: Tensor, drawn: int | None) -> Output:
    """The next token of one row: its ``best`` id for a greedy request, ``drawn``, or what its sampler picks."""
    try:
        sampler = sequence.sampler
        assert sampler is not None
        if drawn is None:
            drawn = best if sampler.is_plain_greedy else sampler.pick(logits)
        return _accept(sequence, drawn)._replace(logprobs=_logprobs(sequence, drawn, logits))
    except Exception as e:
        return Output(sequence, is_end=True, error=_as_error(e))


def _logprobs(sequence: Sequence, token: int, logits: Tensor) -> RawLogprobs | None:
    """Log-softmax of the raw logits [V] at the token and at the likeliest ids, if the request wants them."""
    n_top = sequence.generation.logprobs
    if n_top is None:
        return None
    logprobs = logits.log_softmax(dim=-1)
    top = logprobs.topk(n_top)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return RawLogprobs(float(logprobs[token]), tuple(pairs))


def _accept(sequence: Sequence, token: int) -> Output:
    if not sequence.ids:
        sequence.first_token_s = time.monotonic()
    sequence.ids.append(token)
    if token in sequence.end_ids:
        return Output(sequence, token, is_end=True, reason="stop")
    if sequence.sampler is not None and sequence.sampler.rules and sequence.sampler.rules.is_done:
        return Output(sequence, token, is_end=True, reason="stop")
    if len(sequence.ids) >= sequence.max_new_tokens:
        return Output(sequence, token, is_end=True, reason="length")
    return Output(sequence, token)


def _not_finite() -> NumericalError:
    return NumericalError("the model computed logits that are not finite; the answer was ended")


def _as_error(e: Exception) -> NeuronError:
    if isinstance(e, NeuronError):
        return e
    error = DeviceFault(f"the decode step failed: {type(e).__name__}")
    error.__cause__ = e
    return error
