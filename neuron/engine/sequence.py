"""One generation on its way through the engine: what the event loop and the device thread share of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from neuron.engine.drafts import MOST_DRAFTED, Drafts
from neuron.engine.events import FinishReason, Timings
from neuron.engine.request import Generation, Sampling
from neuron.errors import NeuronError

if TYPE_CHECKING:
    from neuron.engine.sampling import Sampler
    from neuron.engine.thinking import Thinking
    from neuron.model.cache import SequenceCache
    from neuron.text.grammar import Matcher


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """Prompt, limits and state. The first group is fixed at admission; the rest belongs to the device thread."""

    generation: Generation
    prompt_ids: list[int]
    sampling: Sampling
    """Complete: no None but the seed."""
    max_new_tokens: int
    kv_bytes: int
    """Of this sequence and its followers."""
    end_ids: frozenset[int]
    """Ids that end the text."""
    index: int = 0
    """Which of the generation's answers."""
    followers: list[Sequence] = field(default_factory=list)
    """The other answers; they start from this one's cache once it holds the prompt."""
    matcher: Matcher | None = None
    thinking: Thinking | None = None
    drafts: Drafts | None = None
    """None: nothing is guessed."""
    cancelled: bool = False
    """Set by the event loop, read by the device thread before every step."""

    cache: SequenceCache | None = None
    sampler: Sampler | None = None
    source: SequenceCache | None = None
    """Of the answer that it follows: the prompt is taken over from there."""
    filling: bool = False
    """Whether more of its prompt may be known than was copied yet."""
    n_kept: int = 0
    """Tokens from the first on that were offered to the prefix cache, or came from it."""
    n_cached: int = 0
    """Tokens of the prompt whose keys and values were there already; 0 for a follower, whose leader counts them."""
    ids: list[int] = field(default_factory=list)
    """Generated ids, the ending one included."""
    n_drafted: int = 0
    """Ids that were guessed and checked."""
    n_drafted_right: int = 0
    """Those of them that became part of the answer."""
    submitted_s: float = field(default_factory=time.monotonic)
    started_s: float = 0.0
    first_token_s: float = 0.0
    ended_s: float = 0.0

    @property
    def principal(self) -> str:
        """Who asks."""
        return self.generation.principal

    @property
    def principal_limit(self) -> int | None:
        """Most answers that the caller may have on the model."""
        return self.generation.principal_limit

    @property
    def n_answers(self) -> int:
        """Answers that start from this sequence's prompt, its own included."""
        return self.generation.n

    @property
    def capacity(self) -> int:
        """Tokens that the cache must hold; the last generated one never enters it."""
        return len(self.prompt_ids) + self.max_new_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether the whole prompt is in the cache."""
        return self.cache is not None and self.cache.length >= len(self.prompt_ids)

    @property
    def n_prompt_left(self) -> int:
        """Tokens of the prompt that are not in the cache yet."""
        return len(self.prompt_ids) - (self.cache.length if self.cache is not None else 0)

    @property
    def n_settled(self) -> int:
        """Tokens in the cache that stay there: those before the newest id, whose step may be on its way."""
        n_before = len(self.prompt_ids) + max(0, len(self.ids) - 1)
        return min(n_before, self.cache.length) if self.cache is not None else 0

    @property
    def most_drafted(self) -> int:
        """Ids that may be guessed now: behind them comes one more, and all must be within the limit."""
        return min(MOST_DRAFTED, self.max_new_tokens - len(self.ids) - 1)

    def next_ids(self, n: int) -> list[int]:
        """Up to ``n`` ids of the prompt that come next."""
        assert self.cache is not None
        return self.prompt_ids[self.cache.length : self.cache.length + n]

    def forget_unread(self) -> None:
        """Leave in the cache what came before the newest id: the rest is no part of the answer."""
        if self.cache is not None:
            self.cache.truncate(len(self.prompt_ids) + len(self.ids) - 1)

    def timings(self) -> Timings:
        """Where the time went; phases that were not reached are 0."""

        def ms(start: float, end: float) -> float:
            return max(0.0, (end - start) * 1000) if start and end else 0.0

        return Timings(
            queue_ms=ms(self.submitted_s, self.started_s or self.ended_s),
            prefill_ms=ms(self.started_s, self.first_token_s),
            decode_ms=ms(self.first_token_s, self.ended_s),
        )


class RawLogprobs(NamedTuple):
    """Log-softmax of the raw logits at one place."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """(id, logprob), best first."""


class Output(NamedTuple):
    """What the device thread says of one sequence after a step. After one with ``is_end`` nothing follows."""

    sequence: Sequence
    token: int | None = None
    logprobs: RawLogprobs | None = None
    is_end: bool = False
    reason: FinishReason | None = None
    error: NeuronError | None = None
