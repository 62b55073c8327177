"""What is copied between two steps: little at a time, since running streams wait for it.

New sequences take over what is known of their prompts. What sequences compute is kept while they run, so that
little is left to copy when they end, and those that begin the same need not wait for that.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

from neuron.engine.prefix import NODE_TOKENS, PrefixCache
from neuron.engine.sequence import Sequence
from neuron.log import event
from neuron.model.decoder import Decoder

log = logging.getLogger("neuron.engine")

PART_OF_WEIGHTS = 16
"""A step reads all weights, and a byte that is copied into new memory takes some twenty times as long as one that
is read: so copying a sixteenth of the weights' bytes takes about as long as a step of few tokens."""


def piece_tokens(decoder: Decoder, chunk_tokens: int) -> int:
    """Tokens whose keys and values may be copied between two steps of a stream: at least what a step computes of
    prompts beside it, so that nothing piles up."""
    token_bytes = decoder.arch.kv_bytes_per_token(decoder.dtype.itemsize)
    return max(decoder.weight_bytes() // PART_OF_WEIGHTS // token_bytes, chunk_tokens // 4, NODE_TOKENS)


def take_over(prefixes: PrefixCache | None, running: Iterable[Sequence], most: int) -> None:
    """Copy up to ``most`` tokens, in all, of what is known of prompts into the caches of their sequences.

    The last token of a prompt is computed whatever is known, since its logits are wanted.
    """
    for sequence in running:
        left = sequence.n_prompt_left - 1
        if left > 0 and most:
            n = _fill(prefixes, sequence, min(left, most))
            most -= n
            sequence.filling = n < left and not most
            sequence.source = sequence.source if n < left else None


def _fill(prefixes: PrefixCache | None, sequence: Sequence, most: int) -> int:
    cache = sequence.cache
    assert cache is not None
    begin = cache.length
    try:
        if sequence.source is not None:
            cache.extend_from(sequence.source, most)
        elif prefixes is not None:
            prefixes.fill(sequence.principal, sequence.prompt_ids[:-1], cache, most)
            sequence.n_cached += cache.length - begin
            sequence.n_kept = cache.length if cache.length > begin else sequence.n_kept
    except RuntimeError as e:  # a device that is broken: the next step says so
        event(log, "prompt not taken over", level=logging.WARNING, cause=str(e)[:200])
    return cache.length - begin


def keep_new(prefixes: PrefixCache, running: Iterable[Sequence], most: int) -> None:
    """Keep what sequences have computed, where it makes whole nodes; up to ``most`` tokens in all."""
    for sequence in running:
        n = min(sequence.n_settled - sequence.n_kept, most) // NODE_TOKENS * NODE_TOKENS
        if n > 0:
            keep(prefixes, sequence, n)
            most -= n


def keep(prefixes: PrefixCache, sequence: Sequence, most: int = sys.maxsize) -> None:
    """Keep up to ``most`` tokens more of what a sequence has computed; none without memory for a copy."""
    assert sequence.cache is not None
    begin, end = sequence.n_kept, min(sequence.n_settled, sequence.n_kept + most)
    try:
        known = [*sequence.prompt_ids, *sequence.ids][:end]
        prefixes.keep(sequence.principal, known, sequence.cache, begin)
    except (RuntimeError, MemoryError) as e:
        event(log, "prefix not kept", level=logging.WARNING, cause=str(e)[:200])
    sequence.n_kept = max(begin, end)


def forget(prefixes: PrefixCache, sequence: Sequence) -> None:
    """Keep nothing of a sequence that failed, or that begins as it does."""
    prefixes.forget(sequence.principal, [*sequence.prompt_ids, *sequence.ids])
