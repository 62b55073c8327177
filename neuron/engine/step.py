"""One forward pass over the planned sequences, and new tokens for each that has its whole prompt computed."""

from __future__ import annotations

import math
import time
from itertools import count

import torch
from torch import Tensor

from neuron import faults
from neuron.engine.device_errors import as_error
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
        parts.append((sequence.cache, [*ids, *draft], (1 + len(draft)) * completes))
        if completes:
            firsts.append((sequence, n_rows))
            n_rows += 1 + len(draft)
    injected = faults.at("prefill" if any(not part.sequence.ids for part in plan) else "step")
    logits = decoder.step(parts)  # [R, V]
    if "nan" in (injected, faults.at("logits")):
        logits[:1] = math.nan
    return _sample(firsts, {part.sequence: part.draft for part in plan}, logits, decoder) if firsts else []


def _sample(
    firsts: list[Row], drafts: dict[Sequence, list[int]], logits: Tensor, decoder: Decoder
) -> list[Output]:
    """An `Output` for each id that came, of these sequences and of the answers that start from their prompts.

    The rows of logits [R, V] behind a sequence's first are those of its draft; one counts if the draft was right so
    far. What was computed of the rest is forgotten.
    """
    greedy = best_ids(logits)
    outputs, rows = _forked(firsts, decoder)
    for at in count():
        chosen = _chosen(rows, greedy, logits)
        outputs += chosen
        rows = [
            (s, row + 1)
            for (s, row), output in zip(rows, chosen, strict=True)
            if not output.is_end and drafts.get(s, [])[at : at + 1] == [output.token]
        ]
        for sequence, _ in rows:
            sequence.n_drafted_right += 1
        if not rows:
            break
    for sequence, _ in firsts:
        _forget_wrong(sequence, drafts[sequence])
    return outputs


def _forked(firsts: list[Row], decoder: Decoder) -> tuple[list[Output], list[Row]]:
    """The rows with those of the answers that start from them, and an `Output` for each that failed to."""
    outputs, rows = [], []
    for sequence, row in firsts:
        followers, sequence.followers = sequence.followers, []
        for follower in followers:
            try:
                _fork(sequence, follower, decoder)
            except Exception as e:
                outputs.append(Output(follower, is_end=True, error=_as_error(e)))
            else:
                rows.append((follower, row))
        rows.append((sequence, row))
    return outputs, rows


def _forget_wrong(sequence: Sequence, draft: list[int]) -> None:
    """Leave in the cache what came before the newest id."""
    assert sequence.cache is not None
    if draft:
        sequence.n_drafted += len(draft)
        sequence.cache.truncate(len(sequence.prompt_ids) + len(sequence.ids) - 1)


def _chosen(rows: list[Row], greedy: list[int], logits: Tensor) -> list[Output]:
    """The next id of each row."""
    sound = [(s, row) for s, row in rows if greedy[row] >= 0]
    drawn = _drawn(sound, logits)
    return [
        _choose(s, greedy[row], logits[row], drawn.get(s))
        if greedy[row] >= 0
        else Output(s, is_end=True, error=_not_finite())
        for s, row in rows
    ]


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
    if sequence.drafts is not None:
        sequence.drafts.add(token)
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
    return as_error(e, "the decode step")
